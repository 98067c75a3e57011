//! Commit: one compare-and-swap for the object and all the keys that it reserves.

use bytes::Bytes;
use orchestrator_core::{
    object::{DecodeError, Object},
    status::{ApiError, FieldError, FieldErrorKind, Reason},
    store::{Batch, Entry, Operation, Precondition, Revision, StoreError},
};
use serde_json::Value;

use super::{Scope, Server, store_error};
use crate::{
    field::{member, remove},
    limits,
    registry::Kind,
    strategy::Reservation,
};

/// Why a commit did not happen.
pub(super) enum Refusal {
    /// The object itself is not as expected.
    Moved,
    /// A key that the object reserves is held by another.
    Taken(Reservation),
    /// Anything else.
    Failed(ApiError),
}

impl Refusal {
    /// The error of a reservation that the caller asked for by value.
    pub(super) fn taken(kind: &Kind, name: &str, reservation: &Reservation) -> ApiError {
        let error = FieldError {
            field: reservation.field.clone(),
            kind: FieldErrorKind::Invalid,
            detail: reservation.shown.clone(),
        };
        ApiError::invalid(kind.kind_subject(name), &[error])
    }
}

impl Server {
    /// Writes an object in the place of an old one, or of none. What is too large for the store is tried once more without
    /// the managers of its fields, which can be large. Who applies is there for them, and is told instead, as upstream.
    pub(super) async fn put(&self, scope: &Scope, new: &Value, old: Option<&Entry>) -> Result<Object, Refusal> {
        let written = self.put_as_it_is(scope, new, old).await;
        let too_large = matches!(
            &written,
            Err(Refusal::Failed(error)) if error.reason() == Reason::RequestEntityTooLarge
        );
        if !too_large || scope.applies || new["metadata"]["managedFields"].is_null() {
            return written;
        }
        let mut bare = new.clone();
        remove(member(&mut bare, "metadata"), "managedFields");
        self.put_as_it_is(scope, &bare, old).await
    }

    async fn put_as_it_is(&self, scope: &Scope, new: &Value, old: Option<&Entry>) -> Result<Object, Refusal> {
        let failed = |error: DecodeError| Refusal::Failed(error.into());
        let kind = &scope.kind;
        let (namespace, name) = place(new);
        let key = kind.key(namespace, name);
        let value = Object::encode_for_store(&kind.stored(new)).map_err(failed)?;
        // A store that declares expiry as missing keeps events for good.
        let mortal = kind.resource.plural == "events" && self.store.capabilities().expiry;
        let time_to_live = mortal.then_some(limits::EVENT_LIFE);
        let precondition = match old {
            None => Precondition::Absent { key: key.clone() },
            Some(old) => Precondition::AtRevision { key: key.clone(), revision: old.modified },
        };
        let held = old.map_or_else(Vec::new, |old| self.reservations_of(kind, old));
        let wanted = kind.strategy.reservations(new);
        let mut batch = Batch {
            preconditions: vec![precondition],
            operations: vec![Operation::Put { key: key.clone(), value: value.clone(), time_to_live }],
        };
        self.swap_reservations(&mut batch, &held, &wanted).map_err(failed)?;
        let revision = self.commit(batch, &wanted).await?;
        let created = old.map_or(revision, |old| old.created);
        let stored = self.objects.of(&Entry { key, value, created, modified: revision });
        kind.served(stored).map_err(Refusal::Failed)
    }

    /// Removes an object and everything that it reserves.
    pub(super) async fn remove(&self, kind: &Kind, old: &Entry) -> Result<Revision, Refusal> {
        let mut batch = Batch::delete(old.key.clone(), old.modified);
        let held = self.reservations_of(kind, old);
        self.swap_reservations(&mut batch, &held, &[]).map_err(|error| Refusal::Failed(error.into()))?;
        let revision = self.commit(batch, &[]).await?;
        self.objects.forget(&old.key);
        Ok(revision)
    }

    async fn commit(&self, batch: Batch, wanted: &[Reservation]) -> Result<Revision, Refusal> {
        match self.store.commit(batch).await {
            Ok(revision) => Ok(revision),
            Err(StoreError::Conflict { key, .. }) => {
                let taken = wanted.iter().find(|reservation| reservation.key == key);
                Err(taken.map_or(Refusal::Moved, |reservation| Refusal::Taken(reservation.clone())))
            }
            Err(error) => Err(Refusal::Failed(store_error(error))),
        }
    }

    /// Takes the keys that are new and gives back those that are no longer wanted.
    fn swap_reservations(
        &self,
        batch: &mut Batch,
        held: &[Reservation],
        wanted: &[Reservation],
    ) -> Result<(), DecodeError> {
        let holds =
            |list: &[Reservation], reservation: &Reservation| list.iter().any(|other| other.key == reservation.key);
        for reservation in wanted.iter().filter(|reservation| !holds(held, reservation)) {
            let value = match reservation.object.clone() {
                Some(mut object) => {
                    let metadata = member(&mut object, "metadata");
                    *member(metadata, "uid") = self.env.uid().into();
                    *member(metadata, "creationTimestamp") = self.now().into();
                    Object::encode_for_store(&object)?
                }
                None => Bytes::new(),
            };
            let key = reservation.key.clone();
            batch.preconditions.push(Precondition::Absent { key: key.clone() });
            batch.operations.push(Operation::Put { key, value, time_to_live: None });
        }
        for reservation in held.iter().filter(|reservation| !holds(wanted, reservation)) {
            batch.operations.push(Operation::Delete { key: reservation.key.clone() });
        }
        Ok(())
    }

    fn reservations_of(&self, kind: &Kind, entry: &Entry) -> Vec<Reservation> {
        // Most kinds reserve nothing; only for the others is the old object looked at.
        if !kind.is("", "services") {
            return Vec::new();
        }
        self.objects.of(entry).tree().map(|tree| kind.strategy.reservations(tree)).unwrap_or_default()
    }
}

/// Namespace and name of a tree.
pub(super) fn place(tree: &Value) -> (&str, &str) {
    let text = |name: &str| tree["metadata"][name].as_str().unwrap_or_default();
    (text("namespace"), text("name"))
}
