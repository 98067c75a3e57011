//! The API server of a world, which may be killed and started again.

use std::{fmt, sync::Arc};

use orchestrator_apiserver::ApiServer;
use orchestrator_core::{env::Env, status::ApiResult};

use crate::{link::Seat, recorder::Recorder};

/// Where the server is, and what it works on.
pub(super) struct Room {
    env: Env,
    store: Recorder,
    pub(super) seat: Arc<Seat>,
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room").field("seat", &self.seat).finish_non_exhaustive()
    }
}

impl Room {
    pub(super) fn new(env: &Env, store: &Recorder) -> Self {
        Self { env: env.clone(), store: store.clone(), seat: Arc::default() }
    }

    /// Starts a server in the place of the one before, whose links all break.
    pub(super) async fn restart(&self) -> ApiResult<()> {
        let server = ApiServer::builder(&self.env, Arc::new(self.store.clone())).build().await?;
        self.seat.vacate();
        self.seat.take(server);
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.seat.vacate();
    }
}
