//! The controllers of certificate signing requests: those that approve, sign, and clean up.
//!
//! Upstream: <https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/>.

mod decide;
mod request;
mod signer;

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::{
    ByteString,
    api::{
        authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
        certificates::v1::CertificateSigningRequest,
    },
};
use kube_core::params::PostParams;
use orchestrator_core::{
    client::{Api, Call, WriteOptions},
    controller::{Action, Cache, Context, Controller, Reconciler},
    meta,
    object::{Object, ObjectKey},
    status::{ApiError, ApiResult, Reason},
};
use tokio_util::sync::CancellationToken;

use self::{decide::Signing, request::Asked};
use crate::{context::ControllerContext, limits::REQUEST_CLEANING_PERIOD, pods::only, writes::settled};

pub use signer::{CertificateSigner, SigningError, SigningRequest};

/// Approves what kubelets ask for until the shutdown.
pub(crate) async fn run_approving(context: ControllerContext, shutdown: CancellationToken) {
    Controller::new("csrapproving", &context.caches)
        .reconciles::<CertificateSigningRequest>()
        .run(Approving { requests: context.caches.cache() }, shutdown)
        .await;
}

/// Signs until the shutdown, where the cluster has somebody who can.
pub(crate) async fn run_signing(context: ControllerContext, shutdown: CancellationToken) {
    let Some(signer) = context.options.certificate_signer.clone() else { return shutdown.cancelled().await };
    Controller::new("csrsigning", &context.caches)
        .reconciles::<CertificateSigningRequest>()
        .run(Signatures { requests: context.caches.cache(), signer }, shutdown)
        .await;
}

/// Deletes requests that are over until the shutdown.
pub(crate) async fn run_cleaning(context: ControllerContext, shutdown: CancellationToken) {
    let requests = context.caches.cache::<CertificateSigningRequest>();
    let clean = async {
        requests.synced().await;
        loop {
            clean(&context, &requests).await;
            context.env().sleep(REQUEST_CLEANING_PERIOD).await;
        }
    };
    shutdown.run_until_cancelled(Box::pin(clean)).await;
}

async fn clean(context: &ControllerContext, requests: &Cache<CertificateSigningRequest>) {
    let now = context.env().now();
    let api = Api::<CertificateSigningRequest>::all(context.client());
    for request in requests.list().iter().filter(|request| decide::is_outdated(request, now)) {
        let name = meta::name(&request.metadata);
        match api.delete(name, &only(&request.metadata)).await {
            Err(error) if !error.is_not_found() => tracing::warn!(name, %error, "cannot delete a request that is over"),
            _ => {}
        }
    }
}

fn read(request: &CertificateSigningRequest) -> ApiResult<Asked> {
    let unreadable = || {
        let name = meta::name(&request.metadata);
        let message = format!("unable to parse csr {name:?}: PEM block type must be CERTIFICATE REQUEST");
        ApiError::new(Reason::Unknown, message)
    };
    request::read(&request.spec).ok_or_else(unreadable)
}

struct Approving {
    requests: Cache<CertificateSigningRequest>,
}

#[async_trait]
impl Reconciler for Approving {
    type Object = CertificateSigningRequest;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> ApiResult<Action> {
        let request = self.requests.get(key).filter(|request| decide::is_undecided(request));
        let Some(request) = request else { return Ok(Action::Done) };
        let mut tried = Vec::new();
        for (permission, message) in decide::permissions(&request, &read(&request)?) {
            if is_allowed(&request, permission, context).await? {
                approve(&decide::approved(&request, message), context).await?;
                return Ok(Action::Done);
            }
            tried.push(permission);
        }
        if tried.is_empty() {
            return Ok(Action::Done);
        }
        let (name, tried) = (&key.name, tried.join(" "));
        let message = format!("recognized csr {name:?} as [{tried}] but subject access review was not approved");
        Err(ApiError::new(Reason::Forbidden, message))
    }
}

/// Whether whoever asks may have what it asks for without anybody's looking at it.
async fn is_allowed(request: &CertificateSigningRequest, permission: &str, context: &Context) -> ApiResult<bool> {
    let spec = &request.spec;
    let attributes = ResourceAttributes {
        group: Some("certificates.k8s.io".to_owned()),
        resource: Some("certificatesigningrequests".to_owned()),
        subresource: Some(permission.to_owned()),
        verb: Some("create".to_owned()),
        ..Default::default()
    };
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: spec.username.clone(),
            uid: spec.uid.clone(),
            groups: spec.groups.clone(),
            extra: spec.extra.clone(),
            resource_attributes: Some(attributes),
            ..Default::default()
        },
        ..Default::default()
    };
    let review = Api::<SubjectAccessReview>::all(context.client()).create(&PostParams::default(), &review).await?;
    Ok(review.status.as_ref().is_some_and(|status| status.allowed))
}

async fn approve(request: &CertificateSigningRequest, context: &Context) -> ApiResult<()> {
    let api = Api::<CertificateSigningRequest>::all(context.client());
    let object = Object::from_typed(Arc::new(request.clone()));
    let call = Call::Replace { object, options: WriteOptions::default() };
    settled(api.send(Some(meta::name(&request.metadata)), Some("approval"), call).await)
}

struct Signatures {
    requests: Cache<CertificateSigningRequest>,
    signer: Arc<dyn CertificateSigner>,
}

#[async_trait]
impl Reconciler for Signatures {
    type Object = CertificateSigningRequest;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> ApiResult<Action> {
        let request = self.requests.get(key).filter(|request| decide::is_unsigned(request));
        let Some(request) = request else { return Ok(Action::Done) };
        let asked = read(&request)?;
        let answered = match decide::signing(&request, &asked, context.env().now()) {
            Signing::Foreign => return Ok(Action::Done),
            Signing::Refuse(refused) => *refused,
            Signing::Sign { not_before, not_after } => {
                let usages = request.spec.usages.as_deref().unwrap_or_default();
                let signing = SigningRequest { request: &asked.der, usages, not_before, not_after };
                let failed =
                    |error: SigningError| ApiError::new(Reason::Unknown, format!("error auto signing csr: {error}"));
                let certificate = self.signer.sign(signing).map_err(failed)?;
                let mut signed = CertificateSigningRequest::clone(&request);
                signed.status.get_or_insert_default().certificate = Some(ByteString(certificate.into_bytes()));
                signed
            }
        };
        let api = Api::<CertificateSigningRequest>::all(context.client());
        settled(api.replace_status(&key.name, &PostParams::default(), &answered).await).map(|()| Action::Done)
    }
}
