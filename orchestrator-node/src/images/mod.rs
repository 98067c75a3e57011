//! Removes images that nobody needs when their disk fills up, as upstream's image manager does.

mod decide;

use std::{collections::BTreeSet, sync::Arc};

use orchestrator_core::{
    events::Event,
    runtime::{DiskSpace, RuntimeError},
};

use crate::{limits::IMAGE_COLLECTION_PERIOD, node::Node};
use decide::{Known, choose};

/// Looks at the images from time to time. Ends where the runtime does not know their disk.
pub(crate) async fn run(node: Arc<Node>) {
    let mut known = Known::default();
    loop {
        match collect(&node, &mut known).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => tracing::warn!(node = node.name, %error, "looking at images failed"),
        }
        node.env.sleep(IMAGE_COLLECTION_PERIOD).await;
    }
}

/// One look; `false` when there is nothing to look at.
async fn collect(node: &Node, known: &mut Known) -> Result<bool, RuntimeError> {
    let Some(disk) = node.runtime.image_disk().await? else { return Ok(false) };
    let images = node.runtime.list_images().await?;
    let containers = node.runtime.list_containers().await?;
    let used: BTreeSet<&str> = containers.iter().map(|container| container.image_id.as_str()).collect();
    let now = node.env.now();
    known.observe(&images, &used, now);
    let plan = choose(known, disk, &node.config.image_collection, now);
    let mut freed_bytes = 0;
    for image in &plan.images {
        for name in &image.names {
            node.runtime.remove_image(name).await?;
        }
        freed_bytes += image.size_bytes;
        known.forget(&image.id);
    }
    if plan.wanted_bytes > freed_bytes {
        tell(node, plan.wanted_bytes, freed_bytes, disk);
    }
    Ok(true)
}

fn tell(node: &Node, wanted_bytes: u64, freed_bytes: u64, disk: DiskSpace) {
    let message = format!(
        "Failed to garbage collect required amount of images. Attempted to free {wanted_bytes} bytes, but only found \
         {freed_bytes} bytes eligible to free."
    );
    tracing::warn!(node = node.name, ?disk, message);
    node.tell_node(Event::warning("FreeDiskSpaceFailed", message));
}
