//! What libcontainer logs while it fails: its errors name the step only, the reason is in the log.

use std::{
    fmt::{self, Write},
    io,
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

/// Writes errors to standard error, which is the sandbox's `helper.log`.
struct ToHelperLog;

/// From here on, what libcontainer has to say about failures goes into `helper.log`.
pub(super) fn begin() {
    // A second call finds the first one's work; both are the same.
    let _ = tracing::subscriber::set_global_default(ToHelperLog);
}

impl Subscriber for ToHelperLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::ERROR
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(format!("{} {}", super::now(), event.metadata().target()));
        event.record(&mut line);
        line.0.push('\n');
        let _ = io::Write::write_all(&mut io::stderr(), line.0.as_bytes());
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}
