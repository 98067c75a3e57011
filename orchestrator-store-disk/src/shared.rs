//! The parts of an open store, and how its calls get to the disk.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use orchestrator_core::{
    env::{Env, Environment},
    store::{Revision, StoreError},
};
use tokio::sync::{Notify, Semaphore, oneshot};

use crate::{
    database::Database,
    error::{DiskError, contained},
    limits::{COMPACTION_STEP_COMMITS, Limits, WAITING_WRITES},
    open::Found,
    plan::{Plan, Planned},
    queue::{Answer, Job, Queue, Write},
    view::View,
};

pub(crate) struct Shared {
    pub(crate) env: Env,
    pub(crate) limits: Limits,
    /// What has to be added to the environment's monotonic time for the store's own: the time of day, as it was when the store
    /// was opened. In nanoseconds.
    clock_offset: i128,
    /// The database. Whoever reads holds it; whoever changes it holds it alone, for as long as that takes in memory.
    slot: RwLock<Option<Database>>,
    view: Mutex<View>,
    queue: Queue,
    room: Arc<Semaphore>,
    /// Wakes the task that removes expired keys.
    pub(crate) expiry_changed: Notify,
}

/// One turn of the writer: it works until nothing waits. A turn that never gets its thread tells those who wait.
struct Turn(Option<Arc<Shared>>);

impl Turn {
    fn run(mut self) {
        if let Some(shared) = self.0.take() {
            while let Some(group) = shared.queue.take() {
                shared.serve(group);
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(shared) = self.0.take() {
            shared.queue.abandon();
        }
    }
}

impl Shared {
    pub(crate) fn new(env: &Env, limits: Limits, database: Database, found: Found) -> Self {
        let clock_offset = env.now().as_nanosecond() - env.monotonic().as_nanos() as i128;
        Self {
            env: env.clone(),
            limits,
            clock_offset,
            slot: RwLock::new(Some(database)),
            view: Mutex::new(View::new(found.meta, found.live_bytes)),
            queue: Queue::default(),
            room: Arc::new(Semaphore::new(WAITING_WRITES)),
            expiry_changed: Notify::new(),
        }
    }

    pub(crate) fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store's own time, in nanoseconds: it goes on while nobody has the store open.
    pub(crate) fn now(&self) -> u64 {
        let now = self.env.monotonic().as_nanos() as i128 + self.clock_offset;
        u64::try_from(now.max(0)).unwrap_or(u64::MAX)
    }

    /// Whether nothing will be written any more.
    pub(crate) fn is_over(&self) -> bool {
        let view = self.view();
        view.closed || view.ended.is_some()
    }

    fn database(&self) -> RwLockReadGuard<'_, Option<Database>> {
        self.slot.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a function on the database, on a thread that may block.
    pub(crate) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        function: impl FnOnce(&Self, &Database) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let shared = self.clone();
        let call = move || {
            let slot = shared.database();
            let database = slot.as_ref().ok_or(StoreError::Closed)?;
            contained(|| function(&shared, database))
        };
        self.env.blocking(call).await.unwrap_or(Err(StoreError::Closed))
    }

    /// Has something written, together with whatever else waits.
    pub(crate) async fn write(self: &Arc<Self>, job: Job) -> Result<Revision, StoreError> {
        let permit = self.room.clone().acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let (answer, answered) = oneshot::channel();
        if self.queue.push(Write { job, answer, _permit: permit })? {
            let turn = Turn(Some(self.clone()));
            self.env.run_blocking(Box::new(move || turn.run()));
        }
        answered.await.unwrap_or_else(|_| Err(self.gone()))
    }

    /// Why there is no answer.
    fn gone(&self) -> StoreError {
        self.view().ended.clone().map_or(StoreError::Closed, |error| DiskError::Ended(error).into())
    }

    /// Writes a group, and answers each of its calls.
    fn serve(&self, group: Vec<Write>) {
        let mut answers = Vec::with_capacity(group.len());
        let result = contained(|| self.write_group(group, &mut answers));
        if let Err(error) = &result {
            self.end(error.clone());
        }
        for (answer, outcome) in answers {
            let outcome = match &result {
                Ok(()) => outcome,
                // Also what was refused: it may have been because of a commit that is not there.
                Err(error) => Err(error.clone().into()),
            };
            // A caller that has gone does not mind.
            let _ = answer.send(outcome);
        }
        if result.is_ok()
            && let Err(error) = contained(|| self.reclaim())
        {
            self.end(error);
        }
    }

    /// Nothing is written any more.
    fn end(&self, error: DiskError) {
        tracing::error!(%error, "writing to the store has ended");
        self.view().ended.get_or_insert_with(|| Arc::new(error));
    }

    /// Gives space back to the disk when there is much to give. Readers and writers wait meanwhile.
    fn reclaim(&self) -> Result<(), DiskError> {
        let stored_bytes = {
            let view = self.view();
            if view.ended.is_some() {
                return Ok(());
            }
            view.live_bytes.saturating_add(view.meta.history_bytes)
        };
        let is_wasteful = self.database().as_ref().map_or(Ok(false), |database| database.is_wasteful(stored_bytes))?;
        if !is_wasteful {
            return Ok(());
        }
        self.slot.write().unwrap_or_else(PoisonError::into_inner).as_mut().map_or(Ok(()), Database::reclaim)
    }

    /// An error ends writing: then nobody knows what is on the disk, and to flush again would not tell.
    fn write_group(
        &self,
        group: Vec<Write>,
        answers: &mut Vec<(Answer, Result<Revision, StoreError>)>,
    ) -> Result<(), DiskError> {
        let ended = self.view().ended.clone();
        if let Some(error) = ended {
            let refused = |write: Write| (write.answer, Err(DiskError::Ended(error.clone()).into()));
            answers.extend(group.into_iter().map(refused));
            return Ok(());
        }
        let Some(mut planned) = self.plan(group, answers)? else { return Ok(()) };
        let changes = std::mem::take(&mut planned.changes);
        {
            let mut slot = self.slot.write().unwrap_or_else(PoisonError::into_inner);
            self.view().begin(&mut planned);
            if let Some(database) = slot.as_mut() {
                database.apply(changes)?;
            }
        }
        if let Some(database) = self.database().as_ref() {
            database.flush()?;
        }
        self.view().publish(planned);
        Ok(())
    }

    /// What a group comes to. Calls that are refused, and those that change nothing, have their answers then.
    fn plan(
        &self,
        group: Vec<Write>,
        answers: &mut Vec<(Answer, Result<Revision, StoreError>)>,
    ) -> Result<Option<Planned>, DiskError> {
        let slot = self.database();
        // The slot is emptied only when no turn runs.
        let Some(database) = slot.as_ref() else { return Ok(None) };
        let (meta, live_bytes) = {
            let view = self.view();
            (view.meta, view.live_bytes)
        };
        let mut plan = Plan::new(database, &self.limits, meta, live_bytes, self.now())?;
        let mut unfinished = Vec::new();
        for write in group {
            let outcome = match &write.job {
                Job::Commit(batch) => contained(|| plan.commit(batch.clone())),
                Job::Expire => contained(|| plan.expire()).map(|()| Revision(meta.revision)),
                Job::Compact(revision) => match contained(|| plan.compact(*revision, COMPACTION_STEP_COMMITS)) {
                    Ok(false) => {
                        unfinished.push(write);
                        continue;
                    }
                    done => done.map(|_| *revision),
                },
            };
            answers.push((write.answer, outcome));
        }
        self.queue.put_back(unfinished);
        plan.finish(&meta)
    }

    /// Ends everything: watches, calls, and when the last of them is done, the database.
    pub(crate) fn close(&self) {
        self.view().close();
        self.room.close();
        self.queue.close();
        let database = self.slot.write().unwrap_or_else(PoisonError::into_inner).take();
        let closed = contained(|| database.map_or(Ok(()), Database::close));
        if let Err(error) = closed {
            tracing::error!(%error, "closing the store");
        }
    }
}
