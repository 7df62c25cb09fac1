//! Whole-cluster tests of Roost: what they share.

pub mod archive;
pub mod broken;
pub mod chaos;
pub mod chat;
pub mod cluster;
pub mod conversation;
pub mod history;
pub mod ledger;
pub mod log_hooks;
pub mod presence;
pub mod processes;
pub mod proxy;
pub mod schema;
pub mod sim;
pub mod topic_reader;
pub mod verdict;
pub mod wire;

/// Runs each test on both back ends.
#[macro_export]
macro_rules! on_each_backend {
    ($($module:ident::$name:ident,)*) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$module::$name($crate::cluster::Backend::Memory).await;
            })*
        }
        mod services {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$module::$name($crate::cluster::Backend::Services).await;
            })*
        }
    };
}
