//! Images: there, to be had, or neither.

use orchestrator_core::{
    env::Env,
    runtime::{ContainerConfig, PullRequest, RuntimeError},
};

use super::{
    Program, Workbench,
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

/// An image that is brought and removed is there and gone, how often that is asked for; brought again it is the same.
pub async fn images_come_and_go(workbench: &dyn Workbench, env: &Env) -> Outcome {
    let Some(name) = workbench.spare_image() else { return Outcome::Skipped("images that come and go") };
    let mut stage = Stage::new(workbench, env);
    let request = PullRequest { image: name.clone(), credentials: Vec::new() };
    assert_eq!(stage.runtime.image_status(&name).await.unwrap(), None);
    let (one, other) = futures::join!(stage.runtime.pull_image(&request), stage.runtime.pull_image(&request));
    let image = one.unwrap();
    assert_eq!(other.unwrap(), image);
    assert_eq!(image.name, name);
    for _ in 0..2 {
        // An agent that comes back may have to make sure that it is still the same.
        assert_eq!(stage.runtime.pull_image(&request).await.unwrap(), image);
        assert_eq!(stage.runtime.image_status(&name).await.unwrap().as_ref(), Some(&image));
        let listed = stage.runtime.list_images().await.unwrap();
        assert_eq!(listed.iter().filter(|listed| listed.id == image.id).count(), 1, "{listed:?}");
        assert!(listed.windows(2).all(|pair| pair[0].name < pair[1].name), "in order of their names: {listed:?}");
        stage.again();
    }
    for _ in 0..2 {
        stage.runtime.remove_image(&name).await.unwrap();
        assert_eq!(stage.runtime.image_status(&name).await.unwrap(), None);
        let listed = stage.runtime.list_images().await.unwrap();
        assert!(listed.iter().all(|listed| listed.id != image.id), "{listed:?}");
        stage.again();
    }
    assert_eq!(stage.runtime.pull_image(&request).await.unwrap(), image);
    stage.runtime.remove_image(&name).await.unwrap();
    Outcome::Held
}

/// A container keeps what it needs of an image that is removed: it starts, and runs on. A new container needs the image anew.
pub async fn images_in_use_stay(workbench: &dyn Workbench, env: &Env) -> Outcome {
    let Some(name) = workbench.spare_image() else { return Outcome::Skipped("images that come and go") };
    let stage = Stage::new(workbench, env);
    let request = PullRequest { image: name.clone(), credentials: Vec::new() };
    let image = stage.runtime.pull_image(&request).await.unwrap();
    let pod = stage.pod("a").await;
    let of_image = |container, program: &Program| ContainerConfig {
        image: name.clone(),
        ..workbench.container(container, program)
    };
    let running = stage.runtime.create_container(&pod.id, &of_image("running", &Program::Deaf)).await.unwrap();
    stage.runtime.start_container(&running).await.unwrap();
    let waiting = stage.runtime.create_container(&pod.id, &of_image("waiting", &exit(4))).await.unwrap();
    // A runtime may also refuse to remove what is in use.
    match stage.runtime.remove_image(&name).await {
        Ok(()) => assert_eq!(stage.runtime.image_status(&name).await.unwrap(), None),
        Err(error) => assert!(matches!(error, RuntimeError::WrongState(_)), "{error}"),
    }
    stage.runtime.start_container(&waiting).await.unwrap();
    assert_eq!(stage.ended(&waiting).await.exit_code(), Some(4));
    let status = stage.runtime.inspect_container(&running).await.unwrap();
    assert!(status.state.is_running());
    assert_eq!((status.image, status.image_id), (name.clone(), image.id.clone()));
    if stage.runtime.image_status(&name).await.unwrap().is_none() {
        let late = stage.runtime.create_container(&pod.id, &of_image("late", &exit(0))).await;
        assert!(matches!(late, Err(RuntimeError::NotFound { kind: "image", .. })), "{late:?}");
    }
    // Meanwhile it may come again.
    assert_eq!(stage.runtime.pull_image(&request).await.unwrap(), image);
    stage.runtime.remove_sandbox(&pod.id).await.unwrap();
    stage.runtime.remove_image(&name).await.unwrap();
    assert_eq!(stage.runtime.image_status(&name).await.unwrap(), None);
    Outcome::Held
}
