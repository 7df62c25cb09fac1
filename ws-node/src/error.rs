//! Why a node cannot start, and why one ended.

use roost_backend::log::LogError;
use roost_backend::store::StoreError;
use roost_service::TaskEnded;

/// Why a node could not start. Nothing was registered.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("the store (Redis)")]
    Store(#[source] StoreError),
    #[error("the topic {topic}")]
    Log {
        topic: String,
        #[source]
        source: LogError,
    },
    #[error("a metric was registered twice: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error("the socket's address: {0}")]
    Address(#[from] std::io::Error),
}

/// Why a node ended by itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    #[error("another process with this NODE_ID was started later and took over")]
    Replaced,
    #[error(
        "this node was away for so long that it was forgotten (FORGET_AFTER_S, or `roost forget`): \
         start it again"
    )]
    Forgotten,
    /// What is left of the node can neither serve nor hand over (decision 17).
    #[error("a part of the node is gone")]
    Bug(#[source] TaskEnded),
}
