//! Claims and volumes in every state that they can meet in.

use k8s_openapi::{
    api::core::v1::{
        PersistentVolumeClaimSpec, PersistentVolumeSpec, PersistentVolumeStatus, VolumeResourceRequirements,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Time},
};
use orchestrator_core::{meta::is_controlled_by, object::ObjectKey};
use proptest::prelude::*;

use super::{
    super::{
        matching::{bound_claim, bound_status, bound_volume},
        protection::{CLAIM_PROTECTION, Protection, decide as protect},
        provision::{directory_of, make_volume},
    },
    *,
};

fn storage(gigabytes: u32) -> std::collections::BTreeMap<String, Quantity> {
    [("storage".to_owned(), Quantity(format!("{gigabytes}Gi")))].into()
}

fn a_claim(its_name: &str, gigabytes: u32, class: Option<&str>) -> PersistentVolumeClaim {
    let mut claim = PersistentVolumeClaim::default();
    claim.metadata.name = Some(its_name.to_owned());
    claim.metadata.namespace = Some("default".to_owned());
    claim.metadata.uid = Some(format!("uid-{its_name}"));
    claim.spec = Some(PersistentVolumeClaimSpec {
        access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
        storage_class_name: class.map(str::to_owned),
        resources: Some(VolumeResourceRequirements { requests: Some(storage(gigabytes)), limits: None }),
        ..Default::default()
    });
    claim
}

fn a_volume(its_name: &str, gigabytes: u32, class: &str) -> PersistentVolume {
    let mut volume = PersistentVolume::default();
    volume.metadata.name = Some(its_name.to_owned());
    volume.spec = Some(PersistentVolumeSpec {
        access_modes: Some(vec!["ReadWriteOnce".to_owned(), "ReadOnlyMany".to_owned()]),
        storage_class_name: Some(class.to_owned()),
        capacity: Some(storage(gigabytes)),
        persistent_volume_reclaim_policy: Some("Retain".to_owned()),
        ..Default::default()
    });
    volume.status = Some(PersistentVolumeStatus { phase: Some("Available".to_owned()), ..Default::default() });
    volume
}

fn a_class(its_name: &str, mode: &str, default: bool) -> Arc<StorageClass> {
    let mut class = StorageClass { provisioner: PROVISIONER.to_owned(), ..Default::default() };
    class.metadata.name = Some(its_name.to_owned());
    class.volume_binding_mode = Some(mode.to_owned());
    class.metadata.annotations = Some([(DEFAULT_CLASS.to_owned(), default.to_string())].into());
    Arc::new(class)
}

fn decided(
    one: &PersistentVolumeClaim,
    volumes: &[PersistentVolume],
    classes: &[Arc<StorageClass>],
    node: Option<&Node>,
) -> ClaimDecision {
    let volumes: Vec<_> = volumes.iter().cloned().map(Arc::new).collect();
    claim(ClaimView { claim: one, volumes: &volumes, classes, node, waiting: &[] })
}

fn reason(decision: &ClaimDecision) -> &str {
    match decision {
        ClaimDecision::Wait(note) | ClaimDecision::Lost(note) => note.reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_smallest_volume_that_suits_is_chosen() {
    let volumes =
        [a_volume("huge", 100, ""), a_volume("right", 6, ""), a_volume("small", 4, ""), a_volume("other", 5, "fast")];
    let decision = decided(&a_claim("c", 5, Some("")), &volumes, &[], None);
    assert!(matches!(&decision, ClaimDecision::Bind(volume) if name(&volume.metadata) == "right"), "{decision:?}");
    let mut many = a_claim("c", 5, Some(""));
    many.spec.as_mut().unwrap().access_modes = Some(vec!["ReadWriteMany".to_owned()]);
    assert_eq!(reason(&decided(&many, &volumes, &[], None)), "FailedBinding");
}

#[test]
fn a_reservation_by_name_wins_over_size_but_not_over_a_misfit() {
    let mut reserved = a_volume("reserved", 50, "");
    let mut reference = orchestrator_core::meta::object_reference(&a_claim("c", 5, None));
    reference.uid = None;
    reserved.spec.as_mut().unwrap().claim_ref = Some(reference);
    let volumes = [a_volume("right", 5, ""), reserved];
    let decision = decided(&a_claim("c", 5, Some("")), &volumes, &[], None);
    assert!(matches!(&decision, ClaimDecision::Bind(volume) if name(&volume.metadata) == "reserved"));
    let decision = decided(&a_claim("d", 5, Some("")), &volumes[1..], &[], None);
    assert_eq!(reason(&decision), "FailedBinding");
    let decision = decided(&a_claim("c", 60, Some("")), &volumes[1..], &[], None);
    assert_eq!(reason(&decision), "FailedBinding");
}

#[test]
fn a_claim_without_a_class_gets_the_default_one_when_nothing_suits() {
    let classes = [a_class("plain", "Immediate", false), a_class("standard", "Immediate", true)];
    let claim = a_claim("c", 1, None);
    assert_eq!(decided(&claim, &[], &classes, None), ClaimDecision::AssignClass("standard".to_owned()));
    assert_eq!(reason(&decided(&claim, &[], &classes[..1], None)), "FailedBinding");
    assert_eq!(reason(&decided(&a_claim("c", 1, Some("")), &[], &classes, None)), "FailedBinding");
    assert_eq!(reason(&decided(&a_claim("c", 1, Some("no")), &[], &classes, None)), "ProvisioningFailed");
    let decision = decided(&a_claim("c", 1, Some("standard")), &[], &classes, None);
    assert_eq!(decision, ClaimDecision::Provision(classes[1].clone()));
}

#[test]
fn a_first_consumer_is_waited_for() {
    let classes = [a_class("lazy", "WaitForFirstConsumer", false)];
    let mut claim = a_claim("c", 1, Some("lazy"));
    let volumes = [a_volume("there", 1, "lazy")];
    assert_eq!(reason(&decided(&claim, &volumes, &classes, None)), "WaitForFirstConsumer");
    claim.metadata.annotations = Some([(SELECTED_NODE.to_owned(), "n1".to_owned())].into());
    assert_eq!(decided(&claim, &[], &classes, None), ClaimDecision::SelectAgain);
    let mut node = Node::default();
    node.metadata.name = Some("n1".to_owned());
    node.metadata.labels = Some([("kubernetes.io/hostname".to_owned(), "host1".to_owned())].into());
    assert_eq!(decided(&claim, &[], &classes, Some(&node)), ClaimDecision::Provision(classes[0].clone()));
    let base = std::path::Path::new("/base");
    let volume = make_volume(&claim, &classes[0], base, Some(&node));
    assert_eq!(volume.spec.as_ref().unwrap().host_path.as_ref().unwrap().path, "/base/default-c-pvc-uid-c");
    assert_eq!(directory_of(&volume, base).as_deref(), Some("default-c-pvc-uid-c"));
    assert_eq!(directory_of(&volume, std::path::Path::new("/")), None);
    let mut elsewhere = node.clone();
    elsewhere.metadata.labels = Some([("kubernetes.io/hostname".to_owned(), "host2".to_owned())].into());
    let mut free = volume;
    free.spec.as_mut().unwrap().claim_ref = None;
    free.status = Some(PersistentVolumeStatus { phase: Some("Available".to_owned()), ..Default::default() });
    let found =
        |node| matches!(decided(&claim, std::slice::from_ref(&free), &classes, Some(node)), ClaimDecision::Bind(_));
    assert!(found(&node) && !found(&elsewhere));
}

#[test]
fn pods_that_wait_for_a_claim_are_named() {
    let (claim, classes) = (a_claim("c", 1, Some("lazy")), [a_class("lazy", "WaitForFirstConsumer", false)]);
    for (pods, expected) in
        [(&["p"][..], "waiting for pod p to be scheduled"), (&["p", "q"][..], "waiting for pods p,q to be scheduled")]
    {
        let waiting: Vec<String> = pods.iter().map(|pod| (*pod).to_owned()).collect();
        let view = ClaimView { claim: &claim, volumes: &[], classes: &classes, node: None, waiting: &waiting };
        let ClaimDecision::Wait(note) = super::claim(view) else { panic!("{pods:?}") };
        assert_eq!((note.reason, &*note.message), ("WaitForPodScheduled", expected));
    }
}

#[test]
fn classes_of_volume_and_claim_are_the_same() {
    let (mut claim, mut volume) = (a_claim("c", 1, Some("new")), a_volume("v", 1, "new"));
    claim.spec.as_mut().unwrap().volume_attributes_class_name = Some("gold".to_owned());
    assert_eq!(super::super::matching::mismatch(&volume, &claim), Some("volumeAttributesClassName does not match"));
    volume.spec.as_mut().unwrap().volume_attributes_class_name = Some("gold".to_owned());
    assert_eq!(super::super::matching::mismatch(&volume, &claim), None);
    assert_eq!(bound_status(&claim, &volume).current_volume_attributes_class_name.as_deref(), Some("gold"));
    let old = [("volume.beta.kubernetes.io/storage-class".to_owned(), "old".to_owned())];
    claim.metadata.annotations = Some(old.into());
    assert_eq!(super::super::matching::mismatch(&volume, &claim), Some("storageClassName does not match"));
}

#[test]
fn a_path_is_removed_by_nobody() {
    let mut volume = a_volume("v", 1, "");
    let spec = volume.spec.as_mut().unwrap();
    spec.persistent_volume_reclaim_policy = Some("Delete".to_owned());
    let message = |volume: &PersistentVolume| match super::reclaim(volume) {
        Reclaim::Fail(note) => note.message,
        other => panic!("{other:?}"),
    };
    let expected = "error getting deleter volume plugin for volume \"v\": no deletable volume plugin matched";
    assert_eq!(message(&volume), expected);
    let path = |path: &str| k8s_openapi::api::core::v1::HostPathVolumeSource { path: path.to_owned(), type_: None };
    volume.spec.as_mut().unwrap().host_path = Some(path("/mnt/data"));
    assert_eq!(message(&volume), "host_path deleter only supports /tmp/.+ but received provided /mnt/data");
}

#[test]
fn a_claim_that_lost_its_volume_says_so() {
    let mut claim = a_claim("c", 1, None);
    claim.metadata.annotations = Some([(BIND_COMPLETED.to_owned(), "yes".to_owned())].into());
    assert_eq!(reason(&decided(&claim, &[], &[], None)), "ClaimLost");
    claim.spec.as_mut().unwrap().volume_name = Some("v".to_owned());
    assert_eq!(reason(&decided(&claim, &[], &[], None)), "ClaimLost");
    let mut volume = a_volume("v", 1, "");
    volume.spec.as_mut().unwrap().claim_ref = Some(orchestrator_core::meta::object_reference(&a_claim("d", 1, None)));
    assert_eq!(reason(&decided(&claim, &[volume], &[], None)), "ClaimMisbound");
}

#[test]
fn a_volume_follows_its_claim() {
    let mut volume = a_volume("v", 1, "");
    let mut claim = a_claim("c", 1, None);
    assert_eq!(super::volume(&volume, None), VolumeDecision::Phase("Available"));
    volume = bound_volume(&volume, &claim).unwrap();
    assert_eq!(bound_volume(&volume, &claim), None);
    assert_eq!(super::volume(&volume, Some(&claim)), VolumeDecision::Nothing);
    claim = bound_claim(&claim, &volume).unwrap();
    assert_eq!(bound_claim(&claim, &volume), None);
    assert_eq!(super::volume(&volume, Some(&claim)), VolumeDecision::Phase("Bound"));
    assert_eq!(super::volume(&volume, None), VolumeDecision::Release(Reclaim::Retain));
    let mut again = claim.clone();
    again.metadata.uid = Some("another".to_owned());
    assert_eq!(super::volume(&volume, Some(&again)), VolumeDecision::Release(Reclaim::Retain));
    claim.spec.as_mut().unwrap().volume_name = Some("w".to_owned());
    assert_eq!(super::volume(&volume, Some(&claim)), VolumeDecision::Unbind { entirely: true });
    volume.spec.as_mut().unwrap().persistent_volume_reclaim_policy = Some("Delete".to_owned());
    assert!(matches!(super::volume(&volume, None), VolumeDecision::Release(Reclaim::Fail(_))));
    let annotations = volume.metadata.annotations.get_or_insert_default();
    annotations.insert(PROVISIONED_BY.to_owned(), PROVISIONER.to_owned());
    assert_eq!(super::volume(&volume, None), VolumeDecision::Release(Reclaim::Delete));
}

#[test]
fn finalizers_come_and_go() {
    let mut metadata = a_claim("c", 1, None).metadata;
    assert_eq!(protect(&metadata, CLAIM_PROTECTION, false), Protection::Add);
    metadata.finalizers = Some(vec![CLAIM_PROTECTION.to_owned()]);
    assert_eq!(protect(&metadata, CLAIM_PROTECTION, false), Protection::Keep);
    metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
    assert_eq!(protect(&metadata, CLAIM_PROTECTION, true), Protection::Keep);
    assert_eq!(protect(&metadata, CLAIM_PROTECTION, false), Protection::Remove);
    assert!(!is_controlled_by(&metadata, "nobody"));
}

proptest! {
    /// Claims and volumes bound one half at a time, in any order: never two claims on a volume, and in the end no
    /// claim waits while a volume suits it.
    #[test]
    fn binding_is_one_to_one_and_ends(
        sizes in proptest::collection::vec(1..6_u32, 0..6), wishes in proptest::collection::vec(1..6_u32, 0..6),
        order in proptest::collection::vec((0..6_usize, 0..3_u8), 0..60),
    ) {
        let mut volumes: Vec<PersistentVolume> =
            sizes.iter().enumerate().map(|(index, size)| a_volume(&format!("v{index}"), *size, "")).collect();
        let mut claims: Vec<PersistentVolumeClaim> =
            wishes.iter().enumerate().map(|(index, wish)| a_claim(&format!("c{index}"), *wish, Some(""))).collect();
        let whole = (0..claims.len()).map(|index| (index, 2)).collect::<Vec<_>>();
        for (index, depth) in order.into_iter().chain(whole.clone()).chain(whole) {
            let Some(claim) = claims.get_mut(index) else { continue };
            let ClaimDecision::Bind(chosen) = decided(claim, &volumes, &[], None) else { continue };
            let place = volumes.iter_mut().find(|volume| volume.metadata.name == chosen.metadata.name).unwrap();
            if let Some(bound) = bound_volume(place, claim) {
                *place = bound;
            }
            if depth > 0 {
                claim.clone_from(&bound_claim(claim, place).unwrap_or_else(|| claim.clone()));
            }
            if depth > 1 {
                claim.status = Some(bound_status(claim, place));
            }
        }
        for volume in &volumes {
            let users = claims.iter().filter(|claim| volume_name(claim) == volume.metadata.name.as_deref());
            let users: Vec<ObjectKey> = users.map(|claim| ObjectKey::of(&claim.metadata)).collect();
            prop_assert!(users.len() <= 1);
        }
        for claim in &claims {
            let bound = claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
            let waits = matches!(decided(claim, &volumes, &[], None), ClaimDecision::Wait(_));
            prop_assert!(bound != waits);
        }
    }
}
