//! Pods whose images come from a registry, and those whose images do not come.

use std::fs::{self, File};

use orchestrator::{
    env::Env,
    images::{ImageSource, PackedImage, nameless_file},
};
use orchestrator_testkit::registry::DockerRegistry;

use crate::{Test, stage::Stage};

pub(crate) const TESTS: &[(&str, Test)] = &[("images", images)];

/// A registry with one image: a shell, and what it says by default.
fn registry(stage: &Stage) -> DockerRegistry {
    let directory = stage.directory.join("registry");
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let registry = tokio.block_on(async { DockerRegistry::start(&Env::real(), &directory).await }).unwrap();
    let image =
        PackedImage::new().executable("/bin/sh").executable("/bin/sleep").user("nobody").variable("FROM", "the image");
    let image = ImageSource::from(image.entrypoint(["/bin/sh", "-c", "echo $FROM $0; sleep 1000"]).args(["default"]));
    let scratch = || nameless_file(&directory, 1);
    let mut parts = image.read(&"app:1".parse().unwrap(), std::env::consts::ARCH, scratch).unwrap();
    let archive = directory.join("app.tar");
    parts.write("app:1", File::create(&archive).unwrap()).unwrap();
    registry.push(&archive, "team/app:1", &[]).unwrap();
    fs::remove_file(archive).unwrap();
    registry
}

fn images(stage: &Stage) {
    let (registry, kubectl) = (registry(stage), &stage.kubectl);
    let image = format!("{}/team/app", registry.host());
    kubectl.ok(&format!("run plain --image={image}:1"));
    kubectl.ok("wait --for=condition=Ready pod/plain --timeout=60s");
    kubectl.comes_to_say("logs plain", "the image default\n");
    let id = kubectl.ok("get pod plain -o jsonpath={.status.containerStatuses[0].imageID}");
    assert!(id.starts_with(&format!("{image}@sha256:")), "{id}");
    assert_eq!(kubectl.ok("exec plain -- /bin/sh -c 'echo /bin/*'"), "/bin/sh /bin/sleep\n");
    let events = kubectl.ok("get events --field-selector involvedObject.name=plain -o jsonpath={.items[*].message}");
    let pulled = format!("Successfully pulled image \"{image}:1\" in ");
    assert!(events.contains(&format!("Pulling image \"{image}:1\"")) && events.contains(&pulled), "{events}");

    // By its digest, with arguments of its own; what is there is not pulled again.
    let overrides = format!(
        r#"{{"spec":{{"nodeName":"{}","containers":[{{"name":"exact","image":"{id}","args":["told"],"imagePullPolicy":"IfNotPresent"}}]}}}}"#,
        kubectl.ok("get pod plain -o jsonpath={.spec.nodeName}")
    );
    kubectl.ok(&format!("run exact --image={id} '--overrides={overrides}'"));
    kubectl.ok("wait --for=condition=Ready pod/exact --timeout=60s");
    kubectl.comes_to_say("logs exact", "the image told\n");

    kubectl.ok(&format!("run missing --image={image}:2"));
    kubectl.ok("wait --for=jsonpath={.status.containerStatuses[0].state.waiting.reason}=ImagePullBackOff pod/missing --timeout=60s");
    let message = kubectl.ok("get pod missing -o jsonpath={.status.containerStatuses[0].state.waiting.message}");
    assert!(message.starts_with(&format!("Back-off pulling image \"{image}:2\": ErrImagePull: ")), "{message}");
    assert!(message.ends_with("team/app:2: not found"), "{message}");

    // `kubectl` itself refuses to run what is no name.
    for (name, image, policy, reason) in [
        ("never", format!("{image}:3"), "Never", "ErrImageNeverPull"),
        ("invalid", "Not/A:Name".to_owned(), "Always", "InvalidImageName"),
    ] {
        let overrides = format!(
            r#"{{"spec":{{"containers":[{{"name":"{name}","image":"{image}","imagePullPolicy":"{policy}"}}]}}}}"#
        );
        kubectl.ok(&format!("run {name} --image=any '--overrides={overrides}'"));
        let waiting = "{.status.containerStatuses[0].state.waiting.reason}";
        kubectl.ok(&format!("wait --for=jsonpath={waiting}={reason} pod/{name} --timeout=60s"));
    }
    // The image's user has a name: nobody can tell that it is not root's.
    let overrides = format!(
        r#"{{"spec":{{"securityContext":{{"runAsNonRoot":true}},"containers":[{{"name":"named","image":"{image}:1"}}]}}}}"#
    );
    kubectl.ok(&format!("run named --image={image}:1 '--overrides={overrides}'"));
    let waiting = "{.status.containerStatuses[0].state.waiting.reason}";
    kubectl.ok(&format!("wait --for=jsonpath={waiting}=CreateContainerConfigError pod/named --timeout=60s"));
    let message = kubectl.ok("get pod named -o jsonpath={.status.containerStatuses[0].state.waiting.message}");
    assert!(message.contains("image has non-numeric user (nobody), cannot verify user is non-root"), "{message}");
}
