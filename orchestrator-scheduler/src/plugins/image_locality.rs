//! `ImageLocality`: nodes that have a pod's images already.

use orchestrator_core::scheduler::{NodeState, PodInfo, Snapshot};

use crate::framework::{MAX_SCORE, Plugin, PreScore, Score};

/// Images of less than this make no difference, in bytes.
const SMALLEST: i64 = 23 << 20;
/// Images of more than this make no more difference, in bytes per container.
const LARGEST: i64 = 1000 << 20;

/// Prefers nodes that have the pod's images.
#[derive(Clone, Copy, Debug)]
pub struct ImageLocality;

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }
}

impl PreScore for ImageLocality {
    fn pre_score<'a>(
        &'a self,
        pod: &'a PodInfo,
        cluster: &'a Snapshot,
        _: &[&'a NodeState],
    ) -> Option<Box<dyn Score + 'a>> {
        let spec = pod.spec.as_ref()?;
        let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
        let mut images = Vec::new();
        let mut count = 0;
        for container in containers {
            count += 1;
            let name = normalized(container.image.as_deref().unwrap_or_default());
            if let Some(image) = cluster.image(&name) {
                // What few nodes have draws pods to these few nodes: it counts less.
                let spread = image.nodes as f64 / cluster.len() as f64;
                images.push((name, (image.size as f64 * spread) as i64));
            }
        }
        (!images.is_empty()).then(|| Box::new(Images { images, count }) as Box<dyn Score>)
    }
}

struct Images {
    images: Vec<(String, i64)>,
    count: i64,
}

impl Score for Images {
    fn score(&self, node: &NodeState) -> i64 {
        let here: i64 = self.images.iter().filter(|(name, _)| node.has_image(name)).map(|(_, size)| size).sum();
        let largest = LARGEST * self.count;
        MAX_SCORE * (here.clamp(SMALLEST, largest.max(SMALLEST)) - SMALLEST) / (largest - SMALLEST).max(1)
    }
}

/// An image's name with a tag, as nodes report it.
fn normalized(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or_default();
    if last.contains([':', '@']) { name.to_owned() } else { format!("{name}:latest") }
}
