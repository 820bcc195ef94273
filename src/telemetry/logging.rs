//! Diagnostics: JSON lines on stderr, fields flattened beside timestamp, level,
//! message and target.

use std::{env, io};

use tracing_subscriber::{EnvFilter, fmt::SubscriberBuilder};

/// What is logged unless somebody asks for something else. h2 warns of frames
/// that any client may send as often as it likes.
const DEFAULT: &str = "info,h2=error";

/// Starts logging for the process. The filter comes from `TOLLGATE_LOG`, else
/// `RUST_LOG`, else it is [`DEFAULT`]; one that cannot be parsed is reported and
/// replaced by that. A second call changes nothing.
pub fn init_logging() {
    let given = ["TOLLGATE_LOG", "RUST_LOG"]
        .iter()
        .find_map(|name| env::var(name).ok().filter(|text| !text.is_empty()));
    let parsed = EnvFilter::try_new(given.as_deref().unwrap_or(DEFAULT));
    let unreadable = parsed.as_ref().err().map(ToString::to_string);
    let filter = parsed.unwrap_or_else(|_| EnvFilter::new(DEFAULT));
    let started = lines(io::stderr).with_env_filter(filter).try_init();
    if let (Ok(()), Some(reason)) = (started, unreadable) {
        tracing::warn!(reason, "log filter not understood, using the default");
    }
}

type Lines<W> = SubscriberBuilder<
    tracing_subscriber::fmt::format::JsonFields,
    tracing_subscriber::fmt::format::Format<tracing_subscriber::fmt::format::Json>,
    tracing_subscriber::filter::LevelFilter,
    W,
>;

fn lines<W>(writer: W) -> Lines<W>
where
    W: for<'a> tracing_subscriber::fmt::MakeWriter<'a> + 'static,
{
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_writer(writer)
}

#[cfg(test)]
mod tests {
    use std::{io::Write, sync::Arc};

    use parking_lot::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn fields_stand_beside_the_message() {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = lines(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(entrypoint = "web", address = %"127.0.0.1:80", "listening");
        });
        let line: serde_json::Value = serde_json::from_slice(&sink.0.lock()).unwrap();
        assert_eq!(line["message"], "listening");
        assert_eq!(line["entrypoint"], "web");
        assert_eq!(line["address"], "127.0.0.1:80");
        assert_eq!(line["level"], "INFO");
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
        assert!(line["target"].is_string());
    }
}
