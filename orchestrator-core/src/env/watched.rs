//! A value that tasks wait on: whoever waits is woken in the order in which they came.
//!
//! `tokio::sync::watch` wakes its receivers in an order drawn from the thread's own randomness, which a simulation
//! cannot repeat.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

/// A value and the right to change it. Dropping it ends the waits of all [`Watcher`]s.
pub struct Watched<T> {
    shared: Arc<Shared<T>>,
}

/// A view of a [`Watched`] value. Cheap to clone.
pub struct Watcher<T> {
    shared: Arc<Shared<T>>,
}

/// The [`Watched`] value was dropped and changes no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the value changes no more")]
pub struct Dropped;

struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Notify,
}

struct State<T> {
    value: T,
    dropped: bool,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: fmt::Debug> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watched").field(&self.shared.lock().value).finish()
    }
}

impl<T: fmt::Debug> fmt::Debug for Watcher<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watcher").field(&self.shared.lock().value).finish()
    }
}

impl<T> Clone for Watcher<T> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<T> Watched<T> {
    /// A value that nobody waits on yet.
    pub fn new(value: T) -> Self {
        let state = State { value, dropped: false };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), changed: Notify::new() }) }
    }

    /// A view of it.
    pub fn watcher(&self) -> Watcher<T> {
        Watcher { shared: self.shared.clone() }
    }

    /// Sets the value and wakes everyone who waits.
    pub fn set(&self, value: T) {
        self.update(|present| {
            *present = value;
            true
        });
    }

    /// Changes the value, and wakes everyone who waits if `change` says that it matters. `change` must be quick.
    pub fn update(&self, change: impl FnOnce(&mut T) -> bool) {
        let matters = change(&mut self.shared.lock().value);
        if matters {
            self.shared.changed.notify_waiters();
        }
    }
}

impl<T: Clone> Watched<T> {
    /// The value as it is.
    pub fn get(&self) -> T {
        self.shared.lock().value.clone()
    }
}

impl<T> Drop for Watched<T> {
    fn drop(&mut self) {
        self.shared.lock().dropped = true;
        self.shared.changed.notify_waiters();
    }
}

impl<T: Clone> Watcher<T> {
    /// The value as it is.
    pub fn get(&self) -> T {
        self.shared.lock().value.clone()
    }

    /// Waits until the value is as wanted, and gives it. Values that came and went in between may be missed.
    ///
    /// # Errors
    /// The value was dropped without ever having been as wanted.
    pub async fn wait_for(&self, mut wanted: impl FnMut(&T) -> bool) -> Result<T, Dropped> {
        loop {
            let changed = self.shared.changed.notified();
            let (value, dropped) = {
                let state = self.shared.lock();
                (state.value.clone(), state.dropped)
            };
            if wanted(&value) {
                return Ok(value);
            }
            if dropped {
                return Err(Dropped);
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_wait_ends_with_the_value_or_with_its_owner() {
        let watched = Watched::new(1);
        let watcher = watched.watcher();
        let mut two = Box::pin(watcher.wait_for(|value| *value == 2));
        let mut three = Box::pin(watcher.wait_for(|value| *value == 3));
        assert!((&mut two).now_or_never().is_none() && (&mut three).now_or_never().is_none());
        watched.set(2);
        assert_eq!((&mut two).now_or_never(), Some(Ok(2)));
        assert_eq!((&mut three).now_or_never(), None);
        drop(watched);
        assert_eq!((&mut three).now_or_never(), Some(Err(Dropped)));
        assert_eq!(watcher.wait_for(|value| *value == 2).now_or_never(), Some(Ok(2)), "it stays as it was");
    }

    #[test]
    fn a_change_between_the_look_and_the_wait_is_not_missed() {
        let watched = Watched::new(0);
        let watcher = watched.watcher();
        let mut waits = Box::pin(watcher.wait_for(|value| {
            if *value == 0 {
                watched.set(1);
            }
            *value == 1
        }));
        assert_eq!((&mut waits).now_or_never(), Some(Ok(1)));
    }

    #[test]
    fn waiters_are_woken_in_the_order_in_which_they_came() {
        use std::{
            sync::Mutex,
            task::{Context, Wake, Waker},
        };

        struct Noting(usize, Arc<Mutex<Vec<usize>>>);
        impl Wake for Noting {
            fn wake(self: Arc<Self>) {
                self.1.lock().unwrap().push(self.0);
            }
        }

        let (watched, woken) = (Watched::new(0), Arc::new(Mutex::new(Vec::new())));
        let watcher = watched.watcher();
        let mut waits: Vec<_> = (0..50).map(|_| Box::pin(watcher.wait_for(|value| *value == 1))).collect();
        for (index, wait) in waits.iter_mut().enumerate() {
            let waker = Waker::from(Arc::new(Noting(index, woken.clone())));
            assert!(wait.poll_unpin(&mut Context::from_waker(&waker)).is_pending());
        }
        watched.set(1);
        assert_eq!(*woken.lock().unwrap(), (0..50).collect::<Vec<_>>());
    }
}
