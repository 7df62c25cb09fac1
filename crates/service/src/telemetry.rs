//! Where the log goes: standard error, as lines for people or as JSON for machines.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// What is logged when `RUST_LOG` says nothing.
pub const FILTER_DEFAULT: &str = "info";

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("not a log filter such as info,roost_ws_node=debug")]
pub struct FilterError(#[source] tracing_subscriber::filter::ParseError);

/// Checks a text in the form of `RUST_LOG`.
///
/// # Errors
/// If it is not one.
pub fn parse_filter(text: &str) -> Result<EnvFilter, FilterError> {
    EnvFilter::builder().parse(text).map_err(FilterError)
}

/// Starts logging. The log is the one thing a process has only one of; whoever comes second (a program inside
/// another, the next test) keeps what is there and is told `false`.
///
/// # Errors
/// If `filter` is not in the form of `RUST_LOG`.
pub fn init(format: LogFormat, filter: &str) -> Result<bool, FilterError> {
    // A line that cannot be written is lost: the subscriber would say so on standard error, and panic if that is closed.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(parse_filter(filter)?)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    let started = match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(started.is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_to_start_logging_is_told_so_and_harms_nothing() {
        assert!(init(LogFormat::Text, "roost=lots").is_err());
        assert!(init(LogFormat::Text, FILTER_DEFAULT).unwrap());
        assert!(!init(LogFormat::Json, "debug").unwrap());
        tracing::info!("still works");
    }
}
