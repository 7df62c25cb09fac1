//! Why an archiver cannot start.

use std::io;

use roost_backend::log::LogError;

/// Why an archiver cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("the topic {topic}")]
    Log {
        topic: String,
        #[source]
        source: LogError,
    },
    #[error("a listener has no address")]
    Listener(#[from] io::Error),
    #[error("the metrics cannot be registered")]
    Metrics(#[from] prometheus::Error),
}
