//! `ImageLocality`: nodes that have a pod's images already.

use orchestrator_core::scheduler::{ImageState, NodeState, PodInfo, Snapshot};

use crate::framework::{Lasting, MAX_SCORE, Plugin, PreScore, Scaling, Score};

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

    fn lasting(&self, _pod: &PodInfo, _cluster: &Snapshot) -> Option<&dyn Lasting> {
        Some(self)
    }
}

impl Lasting for ImageLocality {
    fn alike(&self, a: &PodInfo, b: &PodInfo) -> bool {
        images(a).eq(images(b))
    }

    fn facts(&self, pod: &PodInfo, cluster: &Snapshot) -> Vec<i64> {
        let known = images(pod).filter_map(|name| cluster.image(&normalized(name)));
        known.map(|image| scaled_size(image, cluster)).collect()
    }
}

/// The images of a pod's containers.
fn images(pod: &PodInfo) -> impl Iterator<Item = &str> {
    let starting = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let running = pod.spec.iter().flat_map(|spec| &spec.containers);
    starting.chain(running).map(|container| container.image.as_deref().unwrap_or_default())
}

/// What few nodes have draws pods to these few nodes: it counts less.
fn scaled_size(image: ImageState, cluster: &Snapshot) -> i64 {
    let spread = image.nodes as f64 / cluster.len() as f64;
    (image.size as f64 * spread) as i64
}

impl PreScore for ImageLocality {
    fn pre_score<'a>(
        &'a self,
        pod: &'a PodInfo,
        cluster: &'a Snapshot,
        _: &[&'a NodeState],
    ) -> Option<Box<dyn Score + 'a>> {
        let count = images(pod).count() as i64;
        let known = images(pod).map(normalized).filter_map(|name| {
            let size = scaled_size(cluster.image(&name)?, cluster);
            Some((name, size))
        });
        let images: Vec<_> = known.collect();
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

    fn scaling(&self) -> Scaling {
        Scaling::None
    }
}

/// An image's name with a tag, as nodes report it.
fn normalized(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or_default();
    if last.contains([':', '@']) { name.to_owned() } else { format!("{name}:latest") }
}
