//! Watch: changes of the store as changes of a selection.

use std::time::Duration;

use futures::{
    FutureExt, Stream, StreamExt,
    future::{BoxFuture, Either},
    stream,
};
use orchestrator_core::{
    client::{ListOptions, Reply, WatchEvent, WatchRequest, WatchStream},
    object::Object,
    status::{ApiError, ApiResult, Reason},
    store::{Change, Entry, Revision, StoreError, WatchItem, WatchOptions},
};

use super::{Scope, Server, read::parse_version, store_error};
use crate::{limits, registry::Kind, selection::Selection};

/// What a watch comes by.
enum Step {
    /// Something to tell.
    Event(ApiResult<WatchEvent>),
    /// A change that is none in the selection.
    Passed(Revision),
}

/// The refusal of a list as a stream by a store that cannot tell when it is complete, in upstream's words.
fn no_progress() -> ApiError {
    let feature = "the required storage feature RequestWatchProgress is disabled";
    ApiError::new(Reason::InternalError, format!("a watch stream was requested by the client but {feature}"))
}

fn bookmark(revision: Revision) -> WatchEvent {
    WatchEvent::Bookmark { resource_version: revision.to_string(), initial_events_end: false }
}

impl Server {
    /// Follows a collection for a known user.
    pub(crate) async fn watch(self: &std::sync::Arc<Self>, request: WatchRequest) -> ApiResult<WatchStream> {
        let scope = self.resolve(request.user.clone(), &request.resource, request.namespace.clone(), None, None)?;
        self.authorize(&scope, "watch")?;
        let selection = self.selection(&scope, &request.label_selector, &request.field_selector)?;
        let asked = parse_version(request.resource_version.as_deref())?.filter(|asked| asked.0 > 0);
        if request.send_initial_events && !self.store.capabilities().bookmarks {
            return Ok(stream::once(async { Err(no_progress()) }).boxed());
        }
        let (initial, after) = match asked {
            Some(revision) if !request.send_initial_events => (Vec::new(), revision),
            _ => self.initial_events(&scope, &request).await?,
        };
        if let Some(error) = self.lies_ahead(after).await? {
            return Ok(stream::once(async move { Err(error) }).boxed());
        }
        let options = WatchOptions { after: Some(after), bookmarks: request.bookmarks };
        let changes = match self.store.watch(scope.kind.range(scope.namespace_opt()), options).await {
            Ok(changes) => changes,
            Err(error) => return Ok(stream::once(async move { Err(store_error(error)) }).boxed()),
        };
        let (server, kind) = (self.clone(), scope.kind.clone());
        let steps = changes.flat_map(move |item| stream::iter(server.steps(&kind, &selection, item)));
        let events = self.bookmarked(steps, request.bookmarks);
        let events = stream::iter(initial.into_iter().map(Ok)).chain(events);
        Ok(self.until(events, request.timeout).boxed())
    }

    async fn lies_ahead(&self, after: Revision) -> ApiResult<Option<ApiError>> {
        let current = self.store.status().await.map_err(store_error)?.revision;
        Ok((after > current).then(|| super::read::too_large(after, current)))
    }

    /// The state as it is, as additions.
    async fn initial_events(&self, scope: &Scope, request: &WatchRequest) -> ApiResult<(Vec<WatchEvent>, Revision)> {
        let options = ListOptions {
            label_selector: request.label_selector.clone(),
            field_selector: request.field_selector.clone(),
            ..Default::default()
        };
        let Reply::List { items, resource_version, .. } = self.list(scope, options).await? else {
            return Err(ApiError::internal("a list was expected"));
        };
        let revision = parse_version(Some(&resource_version))?.unwrap_or_default();
        let mut events: Vec<WatchEvent> = items.into_iter().map(WatchEvent::Added).collect();
        if request.send_initial_events && request.bookmarks {
            events.push(WatchEvent::Bookmark { resource_version, initial_events_end: true });
        }
        Ok((events, revision))
    }

    /// What a change of the store is to somebody who selects.
    fn steps(&self, kind: &Kind, selection: &Selection, item: Result<WatchItem, StoreError>) -> Vec<Step> {
        match item {
            Err(error) => vec![Step::Event(Err(store_error(error)))],
            Ok(WatchItem::Bookmark(revision)) => vec![Step::Event(Ok(bookmark(revision)))],
            Ok(WatchItem::Changes { revision, changes }) => {
                let events =
                    changes.iter().filter_map(|change| self.event(kind, selection, revision, change).transpose());
                let mut steps: Vec<Step> = events.map(Step::Event).collect();
                if steps.is_empty() {
                    steps.push(Step::Passed(revision));
                }
                steps
            }
        }
    }

    /// Tells a watch that passes over all that happens how far it is, so that it can go on from there.
    fn bookmarked(
        &self,
        steps: impl Stream<Item = Step> + Send + 'static,
        wanted: bool,
    ) -> impl Stream<Item = ApiResult<WatchEvent>> + Send + 'static {
        let (env, interval) = (self.env.clone(), self.config.bookmark_interval);
        let state = (Box::pin(steps), None::<(Revision, BoxFuture<'static, ()>)>);
        stream::unfold(state, move |(mut steps, mut passed)| {
            let env = env.clone();
            async move {
                loop {
                    let step = match passed {
                        None => steps.next().await,
                        Some((revision, due)) => match futures::future::select(steps.next(), due).await {
                            Either::Left((step, due)) => {
                                passed = Some((revision, due));
                                step
                            }
                            Either::Right(_) => return Some((Ok(bookmark(revision)), (steps, None))),
                        },
                    };
                    match step? {
                        Step::Event(event) => return Some((event, (steps, None))),
                        Step::Passed(_) if !wanted => passed = None,
                        Step::Passed(revision) => {
                            let due = passed.map_or_else(|| env.sleep(interval), |(_, due)| due);
                            passed = Some((revision, due));
                        }
                    }
                }
            }
        })
    }

    fn event(
        &self,
        kind: &Kind,
        selection: &Selection,
        revision: Revision,
        change: &Change,
    ) -> ApiResult<Option<WatchEvent>> {
        let selected = |entry: &Option<Entry>| match entry {
            Some(entry) => self.objects.selected(selection, entry),
            None => Ok(false),
        };
        let new = change.entry.as_ref().map(|entry| self.objects.of(entry));
        let (was, is) = (selected(&change.previous)?, selected(&change.entry)?);
        let last = || {
            let last = change.previous.as_ref().map(|previous| Object::from_stored(&previous.value, revision));
            last.map(|last| kind.served(last).map(WatchEvent::Deleted)).transpose()
        };
        Ok(match (was, is, new) {
            (false, true, Some(new)) => Some(WatchEvent::Added(kind.served(new)?)),
            (true, true, Some(new)) => Some(WatchEvent::Modified(kind.served(new)?)),
            (true, false, None) => last()?,
            // It left the selection: watchers see its last state in there, at the version of the change.
            (true, false, Some(_)) => last()?,
            _ => None,
        })
    }

    /// Ends a watch at its time, with the server, or after a while of the server's choice, so that load moves on.
    fn until(
        &self,
        events: impl Stream<Item = ApiResult<WatchEvent>> + Send + 'static,
        timeout: Option<Duration>,
    ) -> impl Stream<Item = ApiResult<WatchEvent>> + Send + 'static {
        let life = timeout.filter(|timeout| !timeout.is_zero()).unwrap_or_else(|| {
            limits::WATCH_LIFE + Duration::from_millis(self.env.random_below(limits::WATCH_LIFE.as_millis() as u64))
        });
        let (sleep, closed) = (self.env.sleep(life), self.closed.clone());
        let end = async move { closed.run_until_cancelled_owned(sleep).await.unwrap_or_default() }.boxed();
        let state = (Box::pin(events), end, false);
        stream::unfold(state, |(mut events, end, failed)| async move {
            if failed {
                return None;
            }
            match futures::future::select(events.next(), end).await {
                Either::Left((Some(event), end)) => {
                    let failed = event.is_err();
                    Some((event, (events, end, failed)))
                }
                Either::Left((None, _)) | Either::Right(_) => None,
            }
        })
    }
}
