//! What happened in a run, line by line, for people to read.

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use orchestrator_core::{
    client::{Call, PatchBody, Request},
    controller::RunTrace,
    env::Env,
    status::ApiError,
};

use super::limits;
use crate::{lock::lock, process::Lives};

/// The lines of a run. Clones are the same timeline.
#[derive(Clone, Debug)]
pub(super) struct Timeline {
    env: Env,
    lines: Arc<Mutex<Vec<Line>>>,
}

/// When somebody did something.
#[derive(Clone, Debug)]
struct Line {
    at: Duration,
    who: &'static str,
    what: What,
}

/// Put in words only for those who read it: most runs go well.
#[derive(Clone, Debug)]
enum What {
    Said(String),
    Wrote(Box<Request>, Option<ApiError>),
    Ran(Arc<RunTrace>),
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:10.3}s {:<8} ", self.at.as_secs_f64(), self.who)?;
        match &self.what {
            What::Said(what) => f.write_str(what),
            What::Wrote(request, None) => f.write_str(&words(request)),
            What::Wrote(request, Some(error)) => write!(f, "{}: {error}", words(request)),
            What::Ran(run) => run.fmt(f),
        }
    }
}

impl Timeline {
    pub(super) fn new(env: &Env) -> Self {
        Self { env: env.clone(), lines: Arc::default() }
    }

    /// Somebody does something.
    pub(super) fn note(&self, who: &'static str, what: impl fmt::Display) {
        self.add(who, What::Said(what.to_string()));
    }

    fn add(&self, who: &'static str, what: What) {
        let mut lines = lock(&self.lines);
        if lines.len() < limits::TIMELINE_LINES {
            lines.push(Line { at: self.env.monotonic(), who, what });
        }
    }

    /// A write and what became of it.
    pub(super) fn wrote(&self, who: &'static str, request: &Request, error: Option<ApiError>) {
        self.add(who, What::Wrote(Box::new(request.clone()), error));
    }

    /// All lines in order of time, those in between that tell what controllers did.
    pub(super) fn lines(&self, lives: &Lives) -> Vec<String> {
        let mut lines = lock(&self.lines).clone();
        let ran = lives.controllers().into_iter().flat_map(|controller| controller.recent_runs());
        lines.extend(ran.map(|run| Line { at: run.began, who: "  ran", what: What::Ran(run) }));
        lines.sort_by_key(|line| line.at);
        lines.iter().map(ToString::to_string).collect()
    }
}

/// A request in a few words: `create configmaps default/a {…}`.
pub(super) fn words(request: &Request) -> String {
    let (verb, body) = match &request.call {
        Call::Get { .. } => ("get", None),
        Call::List(_) => ("list", None),
        Call::Create { object, .. } => ("create", object.to_tree().ok()),
        Call::Replace { object, .. } => ("update", object.to_tree().ok()),
        Call::Patch { patch, .. } => {
            let (PatchBody::Json(body) | PatchBody::Merge(body) | PatchBody::Strategic(body) | PatchBody::Apply(body)) =
                patch;
            ("patch", Some(body.clone()))
        }
        Call::Delete(_) => ("delete", None),
        Call::DeleteCollection(..) => ("delete all", None),
    };
    let metadata = |name: &str| body.as_ref().and_then(|body| body["metadata"][name].as_str()).map(str::to_owned);
    let name =
        request.name.clone().or_else(|| metadata("name")).or_else(|| metadata("generateName")).unwrap_or_default();
    let namespace = request.namespace.as_ref().map(|namespace| format!("{namespace}/")).unwrap_or_default();
    let part = request.subresource.as_ref().map(|part| format!("/{part}")).unwrap_or_default();
    let content = body.map(|body| shown(&body)).unwrap_or_default();
    format!("{verb} {} {namespace}{name}{part}{content}", request.resource)
}

/// What of an object is worth to be shown: not its metadata.
fn shown(body: &serde_json::Value) -> String {
    let Some(members) = body.as_object() else { return format!(" {body}") };
    let dull = |name: &str| matches!(name, "apiVersion" | "kind" | "metadata");
    let rest: serde_json::Map<_, _> =
        members.iter().filter(|(name, _)| !dull(name)).map(|(name, value)| (name.clone(), value.clone())).collect();
    if rest.is_empty() {
        return String::new();
    }
    let mut text = format!(" {}", serde_json::Value::Object(rest));
    if let Some((end, _)) = text.char_indices().nth(limits::SHOWN_LETTERS) {
        text.truncate(end);
        text.push('…');
    }
    text
}
