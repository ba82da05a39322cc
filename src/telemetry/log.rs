//! Log lines on standard error, as text or as JSON.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

/// The default filter. Libraries log from level warn. `gcp_auth` is off, because it logs the answers of token
/// endpoints. The calls of `kube_client` are off too: they log conflicts as errors, and rolecall reports failures
/// itself.
pub(crate) const DEFAULT_FILTER: &str = "warn,rolecall=info,gcp_auth=off,kube_client::client::builder=off";

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum LogFormat {
    /// One line of text per event, in color on a terminal.
    #[default]
    Text,
    /// One JSON object per event, with the fields at the top level.
    Json,
}

/// Why logging cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TelemetryError {
    /// The filter does not parse.
    #[error("`{filter}` is not a log filter: write a level (error, warn, info, debug, trace) or MODULE=LEVEL,…")]
    Filter {
        /// The given filter.
        filter: String,
        /// The error of the parser.
        source: ParseError,
    },
    /// Logging was already set up in this process.
    #[error("logging is already set up in this process")]
    AlreadySetUp,
}

/// Parses a filter. A bare level applies to rolecall only: libraries keep their [`DEFAULT_FILTER`].
///
/// # Errors
/// [`TelemetryError::Filter`].
fn parse_filter(filter: &str) -> Result<EnvFilter, TelemetryError> {
    let bare = !filter.is_empty() && filter.bytes().all(|b| b.is_ascii_alphabetic());
    let text = if bare { format!("{DEFAULT_FILTER},rolecall={filter}") } else { format!("{DEFAULT_FILTER},{filter}") };
    EnvFilter::builder()
        .parse(text)
        .map_err(|source| TelemetryError::Filter { filter: filter.chars().take(200).collect(), source })
}

/// Redacts a line before it is logged.
pub(crate) type Redact = fn(&str) -> Cow<'_, str>;

/// Standard error with redaction of each line, so that no person is named, whatever a library or a foreign answer
/// contains.
struct Redacted(Redact);

impl Write for Redacted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = String::from_utf8_lossy(bytes);
        io::stderr().write_all((self.0)(&line).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Sends the log lines of this process to standard error, redacted by `redact`. Called once, at the start of the
/// process.
///
/// `filter` is a level, or directives such as `info,rolecall::sync=debug` that are added to [`DEFAULT_FILTER`].
///
/// # Errors
/// [`TelemetryError`].
pub(crate) fn init_logs(format: LogFormat, filter: &str, redact: Redact) -> Result<(), TelemetryError> {
    let filter = parse_filter(filter)?;
    let layer = match format {
        LogFormat::Text => fmt::layer()
            .with_writer(move || Redacted(redact))
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(true)
            .boxed(),
        LogFormat::Json => fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .with_writer(move || Redacted(redact))
            .boxed(),
    };
    tracing_subscriber::registry().with(filter).with(layer).try_init().map_err(|_| TelemetryError::AlreadySetUp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_level_is_for_rolecall_and_leaves_libraries_quiet() {
        let filter = parse_filter("debug").unwrap().to_string();
        assert!(filter.contains("rolecall=debug"), "{filter}");
        assert!(filter.contains("gcp_auth=off"), "{filter}");
        assert!(!filter.contains("rolecall=info"), "{filter}");
    }

    #[test]
    fn directives_are_added_and_override() {
        let filter = parse_filter("rolecall::sync=trace,gcp_auth=warn").unwrap().to_string();
        assert!(filter.contains("rolecall::sync=trace") && filter.contains("gcp_auth=warn"), "{filter}");
        assert!(filter.contains("rolecall=info"), "{filter}");
    }

    #[test]
    fn a_wrong_filter_is_refused_with_its_text() {
        let error = parse_filter("rolecall=loud").unwrap_err();
        assert!(error.to_string().starts_with("`rolecall=loud` is not a log filter"), "{error}");
    }

    #[test]
    fn a_misspelt_level_is_refused() {
        assert!(matches!(parse_filter("loud"), Err(TelemetryError::Filter { .. })));
    }
}
