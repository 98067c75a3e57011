//! Administrators' access to devices, which a namespace has to be labelled for (KEP-5018).

use orchestrator_core::status::ApiResult;
use serde_json::Value;

use super::{Scope, Server};
use crate::field::{Errors, Field};

/// The label of namespaces whose claims may ask for it.
const LABEL: &str = "resource.kubernetes.io/admin-access";

const UNLABELLED: &str = "admin access to devices requires the `resource.kubernetes.io/admin-access: true` label on the \
                          containing namespace";

impl Server {
    /// What is wrong with a claim, or a change of its status, if it asks for such access and may not. What asks is not changed
    /// later, and what was granted stays so.
    pub(super) async fn refuse_device_access(
        &self,
        scope: &Scope,
        new: &Value,
        old: Option<&Value>,
    ) -> ApiResult<Errors> {
        let mut errors = Errors::default();
        let field = Field::root(new);
        let of_status = scope.subresource.is_some();
        let asked = match (&*scope.kind.resource.group, &*scope.kind.resource.plural, old) {
            ("resource.k8s.io", "resourceclaims", None) => asking(&field.at("spec.devices.requests")),
            // Shown as the claim that the template is of.
            ("resource.k8s.io", "resourceclaimtemplates", None) => asking(&field.at("spec.spec.devices.requests")),
            ("resource.k8s.io", "resourceclaims", Some(old)) if of_status => {
                let was_granted = granted(&Field::root(old)).is_some();
                granted(&field).filter(|_| !was_granted)
            }
            _ => None,
        };
        if let Some(path) = asked
            && !self.is_labelled(&scope.namespace).await?
        {
            field.shown_at(path).forbidden(&mut errors, UNLABELLED);
        }
        Ok(errors)
    }

    async fn is_labelled(&self, namespace: &str) -> ApiResult<bool> {
        let Some(namespace) = self.find_object("", "namespaces", "", namespace).await? else { return Ok(false) };
        let labels = namespace.metadata()?.labels.as_ref();
        Ok(labels.and_then(|labels| labels.get(LABEL)).is_some_and(|value| value == "true"))
    }
}

/// Which of the requests asks, as upstream names the place.
fn asking(requests: &Field<'_>) -> Option<String> {
    let index = requests.items().iter().position(|request| request.at("exactly.adminAccess").bool() == Some(true))?;
    Some(format!("spec.devices.requests[{index}].adminAccess"))
}

/// Which of the devices of a claim was given that way.
fn granted(claim: &Field<'_>) -> Option<String> {
    let results = claim.at("status.allocation.devices.results");
    let given = results.items().into_iter().map(|result| result.get("adminAccess"));
    given.into_iter().find(|access| access.bool() == Some(true)).map(|access| access.path())
}
