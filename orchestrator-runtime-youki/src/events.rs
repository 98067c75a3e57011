//! Changes as they happen: one subscription for each helper, taken anew when a sandbox or an agent comes.

use futures::{
    StreamExt,
    stream::{BoxStream, SelectAll, unfold},
};
use orchestrator_core::runtime::{RuntimeEvent, SandboxId};
use tokio::sync::broadcast;

use crate::{
    client::{CallError, HelperConnection},
    layout::{Layout, SandboxDirectory},
    protocol::{Reply, Request},
    records::lock_holder,
};

enum Item {
    /// There is a sandbox to subscribe to.
    Added(SandboxId),
    /// Something to pass on.
    Event(RuntimeEvent),
}

/// All changes from now on. The stream owns its connections: nothing runs when nobody asks for the next event.
pub(crate) fn events(layout: Layout, added: broadcast::Receiver<SandboxId>) -> BoxStream<'static, RuntimeEvent> {
    let mut sources: SelectAll<BoxStream<'static, Item>> = SelectAll::new();
    sources.push(additions(added, layout.clone()));
    let existing = layout.list().unwrap_or_default();
    sources.push(futures::stream::iter(existing.into_iter().map(Item::Added)).boxed());
    unfold((sources, layout), |(mut sources, layout)| async move {
        loop {
            match sources.next().await? {
                Item::Event(event) => return Some((event, (sources, layout))),
                Item::Added(id) => {
                    if let Ok(directory) = layout.sandbox(&id) {
                        sources.push(changes(id, directory));
                    }
                }
            }
        }
    })
    .boxed()
}

fn additions(receiver: broadcast::Receiver<SandboxId>, layout: Layout) -> BoxStream<'static, Item> {
    unfold((receiver, layout), |(mut receiver, layout)| async move {
        let items = match receiver.recv().await {
            Ok(id) => vec![Item::Added(id)],
            Err(broadcast::error::RecvError::Lagged(_)) => {
                let all = layout.list().unwrap_or_default().into_iter().map(Item::Added);
                std::iter::once(Item::Event(RuntimeEvent::Lagged)).chain(all).collect()
            }
            Err(broadcast::error::RecvError::Closed) => return None,
        };
        Some((futures::stream::iter(items), (receiver, layout)))
    })
    .flatten()
    .boxed()
}

enum Subscription {
    New,
    Open(HelperConnection),
    Over,
}

/// The changes of one sandbox until its helper ends, which is the last of them. The first says that from here on
/// nothing is missed: whoever looks now sees the truth.
fn changes(id: SandboxId, directory: SandboxDirectory) -> BoxStream<'static, Item> {
    let pod_uid = id.0.split('.').next().unwrap_or_default().to_owned();
    unfold(Subscription::New, move |mut subscription| {
        let (id, pod_uid, directory) = (id.clone(), pod_uid.clone(), directory.clone());
        async move {
            let changed = Item::Event(RuntimeEvent::Sandbox { id, pod_uid: pod_uid.clone() });
            loop {
                match subscription {
                    Subscription::Over => return None,
                    Subscription::New => match subscribe(&directory).await {
                        Ok(connection) => return Some((changed, Subscription::Open(connection))),
                        Err(_) => return Some((changed, Subscription::Over)),
                    },
                    Subscription::Open(mut connection) => match connection.next().await {
                        Ok((Reply::Changed { container: Some(id) }, _)) => {
                            let event = Item::Event(RuntimeEvent::Container { id, pod_uid });
                            return Some((event, Subscription::Open(connection)));
                        }
                        Ok((Reply::Changed { container: None }, _)) => {
                            return Some((changed, Subscription::Open(connection)));
                        }
                        Ok(_) => subscription = Subscription::Open(connection),
                        // A helper that lives has hung up because this side was too slow.
                        Err(_) if matches!(lock_holder(&directory), Ok(Some(_))) => {
                            return Some((Item::Event(RuntimeEvent::Lagged), Subscription::New));
                        }
                        Err(_) => return Some((changed, Subscription::Over)),
                    },
                }
            }
        }
    })
    .boxed()
}

async fn subscribe(directory: &SandboxDirectory) -> Result<HelperConnection, CallError> {
    let mut connection = HelperConnection::open(directory, &Request::Subscribe).await?;
    connection.next().await?;
    Ok(connection)
}
