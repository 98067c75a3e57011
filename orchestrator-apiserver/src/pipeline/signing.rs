//! Admission of requests for certificates: who may approve and sign them.

use orchestrator_core::status::{ApiError, ApiResult};
use serde_json::Value;

use super::{Scope, Server, create::name_of};
use crate::{
    auth::{Attributes, Decision},
    kinds,
};

impl Server {
    /// Admits a request for a certificate, new or changed.
    pub(super) fn admit_request(&self, scope: &Scope, tree: &Value, old: Option<&Value>) -> ApiResult<()> {
        if let Some(old) = old {
            return self.admit_signing(scope, tree, old);
        }
        let forbidden = |why: String| Err(ApiError::forbidden(scope.kind.subject(name_of(tree)), &why));
        kinds::forbidden_subject(tree).map_or(Ok(()), forbidden)
    }

    /// Who approves or signs must be allowed to do so for the signer, beside writing the object.
    fn admit_signing(&self, scope: &Scope, tree: &Value, old: &Value) -> ApiResult<()> {
        let signs = ["certificate", "conditions"].iter().any(|name| tree["status"][*name] != old["status"][*name]);
        let verb = match scope.subresource.as_deref() {
            Some("approval") => "approve",
            Some("status") if signs => "sign",
            _ => return Ok(()),
        };
        let signer = tree["spec"]["signerName"].as_str().unwrap_or_default();
        let domain = signer.split('/').next().unwrap_or_default();
        let may = |name: &str| {
            let attributes = Attributes {
                verb,
                group: "certificates.k8s.io",
                version: "*",
                resource: "signers",
                name,
                ..Attributes::default()
            };
            self.authorizer.authorize(&scope.user, &attributes) == Decision::Allow
        };
        if may(signer) || may(&format!("{domain}/*")) {
            return Ok(());
        }
        let why = format!("user not permitted to {verb} requests with signerName {signer:?}");
        Err(ApiError::forbidden(scope.kind.subject(name_of(tree)), &why))
    }
}
