//! What is done to the world, and what its parts say of themselves, for whoever has to find out later.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use orchestrator_core::env::Env;

use crate::lock::lock;

/// Lines with their times. Clones are the same diary.
#[derive(Clone, Debug)]
pub(crate) struct Diary {
    env: Env,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Diary {
    pub(crate) fn new(env: &Env) -> Self {
        Self { env: env.clone(), lines: Arc::default() }
    }

    pub(crate) fn note(&self, what: impl fmt::Display) {
        let line = format!("{} {what}", self.env.now());
        lock(&self.lines).push(line);
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        lock(&self.lines).clone()
    }
}
