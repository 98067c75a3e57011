//! The controllers that attach volumes, let them grow, and make and free claims of devices.

use k8s_openapi::api::{
    core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod},
    resource::v1::{ResourceClaim, ResourceClaimTemplate},
    storage::v1::{CSIDriver, VolumeAttachment},
};
use kube_core::params::{DeleteParams, Patch, PatchParams};
use orchestrator_core::meta;
use serde_json::{Value, json};

use crate::world::{self, World};

/// Runs a controller and a test beside it.
fn simulate(controller: &str, test: impl AsyncFn(&World)) {
    world::simulate(&[controller], |_| (), async |world, ()| test(world).await);
}

async fn volume(world: &World, name: &str, driver: &str) {
    let csi = json!({"driver": driver, "volumeHandle": format!("handle-{name}")});
    let spec = json!({"accessModes": ["ReadWriteOnce"], "csi": csi});
    world.create::<PersistentVolume>("", json!({"metadata": {"name": name}, "spec": spec})).await;
    let claim = json!({"metadata": {"name": format!("claim-{name}")}, "spec": {"volumeName": name}});
    world.create::<PersistentVolumeClaim>("default", claim).await;
}

fn pod(name: &str, node: &str, volume: &str) -> Value {
    let claim = json!({"claimName": format!("claim-{volume}")});
    let volumes = json!([{"name": "v", "persistentVolumeClaim": claim}]);
    json!({"metadata": {"name": name}, "spec": {"nodeName": node, "containers": [], "volumes": volumes}})
}

#[test]
fn volumes_are_attached_while_pods_use_them() {
    simulate("persistentvolume-attach-detach-controller", async |world| {
        let annotations = json!({"volumes.kubernetes.io/controller-managed-attach-detach": "true"});
        for name in ["n1", "n2"] {
            world.create::<Node>("", json!({"metadata": {"name": name, "annotations": annotations}})).await;
        }
        let driver = json!({"metadata": {"name": "loose"}, "spec": {"attachRequired": false}});
        world.create::<CSIDriver>("", driver).await;
        volume(world, "disk", "tight").await;
        volume(world, "share", "loose").await;
        world.create::<Pod>("default", pod("a", "n1", "disk")).await;
        world.create::<Pod>("default", pod("b", "n1", "share")).await;
        world.wait(2).await;
        let attachments = world.list::<VolumeAttachment>("").await;
        let [attachment] = &attachments[..] else { panic!("{attachments:?}") };
        let name = meta::name(&attachment.metadata);
        // The digest of `handle-disktightn1`, by which a node finds it.
        assert_eq!(name, "csi-358ce0e9cf93625445e3164b1b1d6280387ed8d9b76fe03fadcf096e69749f8b");
        world.patch_status::<VolumeAttachment>("", name, json!({"attached": true})).await;
        world.wait(2).await;
        let attached = world.tree::<Node>("", "n1").unwrap()["status"]["volumesAttached"].clone();
        assert_eq!(attached, json!([{"name": "kubernetes.io/csi/tight^handle-disk", "devicePath": ""}]));
        let in_use = json!({"volumesInUse": ["kubernetes.io/csi/tight^handle-disk"], "conditions": [{"type": "Ready", "status": "True"}]});
        world.patch_status::<Node>("", "n1", in_use).await;
        world.create::<Pod>("default", pod("c", "n2", "disk")).await;
        world.wait(2).await;
        assert_eq!(world.list::<VolumeAttachment>("").await.len(), 1, "one node alone may have it");
        world.api::<Pod>("default").delete("a", &DeleteParams::default()).await.unwrap();
        world.wait(30).await;
        assert_eq!(world.list::<VolumeAttachment>("").await[0].spec.node_name, "n1", "the node still uses it");
        world.patch_status::<Node>("", "n1", json!({"volumesInUse": []})).await;
        world.wait(30).await;
        let attachments = world.list::<VolumeAttachment>("").await;
        assert_eq!(attachments.iter().map(|it| it.spec.node_name.as_str()).collect::<Vec<_>>(), ["n2"]);
        assert_eq!(world.tree::<Node>("", "n1").unwrap()["status"]["volumesAttached"], json!([]));
        let reasons = world.reasons().await;
        assert!(reasons.contains("SuccessfulAttachVolume") && reasons.contains("FailedAttachVolume"), "{reasons:?}");
    });
}

#[test]
fn a_claim_that_asks_for_more_gets_it() {
    simulate("persistentvolume-expander-controller", async |world| {
        let resources = |size: &str| json!({"requests": {"storage": size}});
        let spec = json!({"volumeName": "v", "resources": resources("1Gi")});
        let claim =
            world.create::<PersistentVolumeClaim>("default", json!({"metadata": {"name": "c"}, "spec": spec})).await;
        let status = json!({"phase": "Bound", "capacity": {"storage": "1Gi"}});
        world.patch_status::<PersistentVolumeClaim>("default", "c", status).await;
        let reference = json!({"namespace": "default", "name": "c", "uid": claim.metadata.uid});
        let annotations = json!({"pv.kubernetes.io/provisioned-by": "orchestrator.local/directory"});
        let spec = json!({"capacity": {"storage": "1Gi"}, "claimRef": reference});
        let metadata = json!({"name": "v", "annotations": annotations});
        world.create::<PersistentVolume>("", json!({"metadata": metadata, "spec": spec})).await;
        world.wait(2).await;
        let body = Patch::Merge(json!({"spec": {"resources": resources("3Gi")}}));
        world.api::<PersistentVolumeClaim>("default").patch("c", &PatchParams::default(), &body).await.unwrap();
        world.wait(2).await;
        assert_eq!(world.tree::<PersistentVolume>("", "v").unwrap()["spec"]["capacity"]["storage"], "3Gi");
        assert_eq!(
            world.tree::<PersistentVolumeClaim>("default", "c").unwrap()["status"]["capacity"]["storage"],
            "3Gi"
        );
        assert!(world.reasons().await.contains("VolumeResizeSuccessful"));
    });
}

#[test]
fn claims_of_devices_come_and_go_with_their_pods() {
    simulate("resourceclaim-controller", async |world| {
        let claims =
            json!([{"name": "gpu", "resourceClaimTemplateName": "t"}, {"name": "shared", "resourceClaimName": "s"}]);
        let spec = json!({"containers": [], "resourceClaims": claims});
        let pod = world.create::<Pod>("default", json!({"metadata": {"name": "p"}, "spec": spec})).await;
        world.wait(2).await;
        assert!(world.reasons().await.contains("FailedResourceClaimCreation"), "there is no template yet");
        let template = json!({"metadata": {"name": "t"}, "spec": {"spec": {"devices": {}}}});
        world.create::<ResourceClaimTemplate>("default", template).await;
        let metadata = json!({"name": "s", "finalizers": ["resource.kubernetes.io/delete-protection"]});
        world.create::<ResourceClaim>("default", json!({"metadata": metadata, "spec": {"devices": {}}})).await;
        let user = json!({"resource": "pods", "name": "p", "uid": pod.metadata.uid});
        world.patch_status::<ResourceClaim>("default", "s", json!({"allocation": {}, "reservedFor": [user]})).await;
        world.wait(60).await;
        let claims = world.list::<ResourceClaim>("default").await;
        let made =
            claims.iter().find(|claim| meta::is_controlled_by(&claim.metadata, meta::uid(&pod.metadata))).unwrap();
        let name = meta::name(&made.metadata);
        assert!(name.starts_with("p-gpu-") && claims.len() == 2, "{name}");
        let statuses = world.tree::<Pod>("default", "p").unwrap()["status"]["resourceClaimStatuses"].clone();
        assert_eq!(statuses, json!([{"name": "gpu", "resourceClaimName": name}]));
        world.patch_status::<Pod>("default", "p", json!({"phase": "Succeeded"})).await;
        world.wait(2).await;
        let claims = world.list::<ResourceClaim>("default").await;
        assert_eq!(claims.iter().map(|claim| meta::name(&claim.metadata)).collect::<Vec<_>>(), ["s"]);
        let shared = world.tree::<ResourceClaim>("default", "s").unwrap();
        assert_eq!((shared["status"].get("allocation"), shared["status"].get("reservedFor")), (None, None));
        assert!(shared["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty));
    });
}
