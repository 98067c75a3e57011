//! Images: there, to be had, or neither.

use orchestrator_core::{
    env::Env,
    runtime::{PullRequest, RuntimeError},
};

use super::{
    Workbench,
    stage::{Stage, exit},
};
use crate::harness::Outcome;

/// An image that was pulled is there under its name; one that cannot be had is an error, and not there.
pub async fn images_are_there_or_not(workbench: &dyn Workbench, env: &Env) -> Outcome {
    let stage = Stage::new(workbench, env);
    let runtime = &stage.runtime;
    let pull = |image: &str| PullRequest { image: image.to_owned(), credentials: Vec::new() };
    let name = workbench.container("main", &exit(0)).image;
    let image = runtime.pull_image(&pull(&name)).await.unwrap();
    assert_eq!(image.name, name);
    assert!(!image.id.is_empty());
    assert_eq!(runtime.pull_image(&pull(&name)).await.unwrap(), image);
    assert_eq!(runtime.image_status(&name).await.unwrap().as_ref(), Some(&image));
    let listed = runtime.list_images().await.unwrap();
    assert!(listed.windows(2).all(|pair| pair[0].name < pair[1].name), "in order of their names: {listed:?}");
    assert!(listed.iter().any(|listed| listed.id == image.id), "{image:?} is not among {listed:?}");

    let missing = workbench.missing_image();
    assert_eq!(runtime.image_status(&missing).await.unwrap(), None);
    let failure = runtime.pull_image(&pull(&missing)).await;
    assert!(matches!(&failure, Err(RuntimeError::ImagePull(why)) if !why.is_empty()), "{failure:?}");
    assert_eq!(runtime.image_status(&missing).await.unwrap(), None);
    runtime.remove_image(&missing).await.unwrap();

    let pod = stage.pod("a").await;
    let mut config = workbench.container("main", &exit(0));
    config.image = missing;
    let failure = runtime.create_container(&pod.id, &config).await;
    assert!(matches!(failure, Err(RuntimeError::NotFound { kind: "image", .. })), "{failure:?}");
    Outcome::Held
}
