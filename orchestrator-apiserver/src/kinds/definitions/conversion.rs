//! How objects get from one version of a kind to another.

use base64::{Engine, prelude::BASE64_STANDARD};
use x509_parser::pem::Pem;

use super::is_established;
use crate::{
    field::{Errors, Field},
    kinds::webhook_client,
};

const NOT_ASKED: &str = "should not be set when strategy is not set to Webhook";

/// The rules of a conversion. Errors name its members as upstream keeps them.
pub(super) fn validate(conversion: &Field<'_>, old: Option<&Field<'_>>, errors: &mut Errors) {
    let strategy = conversion.get("strategy");
    if strategy.text().is_empty() {
        strategy.required(errors, "");
    } else {
        strategy.one_of(errors, &["None", "Webhook"]);
    }
    let place = |name: &str| format!("{}.{name}", conversion.path());
    let client = conversion.at("webhook.clientConfig").shown_at(place("webhookClientConfig"));
    let versions = conversion.at("webhook.conversionReviewVersions").shown_at(place("conversionReviewVersions"));
    if strategy.text() != "Webhook" {
        if client.exists() {
            client.forbidden(errors, NOT_ASKED);
        }
        if versions.len() > 0 {
            versions.forbidden(errors, NOT_ASKED);
        }
        return;
    }
    if client.exists() {
        webhook_client::validate(&client, errors);
        let bundle = client.get("caBundle");
        let is_bad = |bundle: &Field<'_>| bundle.len() > 0 && !holds_certificates(bundle.text());
        let was_bad =
            |old: &Field<'_>| !is_established(old) || is_bad(&old.at("spec.conversion.webhook.clientConfig.caBundle"));
        if is_bad(&bundle) && !old.is_some_and(was_bad) {
            bundle.invalid(errors, "data does not contain any valid RSA or ECDSA certificates");
        }
    } else {
        client.required(errors, "required when strategy is set to Webhook");
    }
    webhook_client::review_versions(&versions, "", errors);
}

fn holds_certificates(encoded: &str) -> bool {
    let text = BASE64_STANDARD.decode(encoded).unwrap_or_default();
    let blocks = Pem::iter_from_buffer(&text).map_while(Result::ok);
    let mut certificates = blocks.filter(|block| block.label == "CERTIFICATE");
    certificates.any(|block| block.parse_x509().is_ok())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::told;

    fn broken(conversion: Value) -> Vec<String> {
        let (spec, mut errors) = (json!({ "conversion": conversion }), Errors::default());
        validate(&Field::root(&spec).get("conversion"), None, &mut errors);
        told(errors)
    }

    #[test]
    fn only_webhooks_have_clients() {
        assert_eq!(broken(json!({"strategy": "None"})), [""; 0]);
        let webhook = json!({"clientConfig": {"url": "https://example.com"}, "conversionReviewVersions": ["v1"]});
        assert_eq!(broken(json!({"strategy": "Webhook", "webhook": webhook})), [""; 0]);
        assert_eq!(
            broken(json!({"strategy": "None", "webhook": webhook})),
            [
                format!("conversion.webhookClientConfig: {NOT_ASKED}"),
                format!("conversion.conversionReviewVersions: {NOT_ASKED}"),
            ]
        );
        assert_eq!(
            broken(json!({"strategy": "Webhook"})),
            [
                "conversion.webhookClientConfig: required when strategy is set to Webhook",
                "conversion.conversionReviewVersions: ",
            ]
        );
        let bad = json!({"clientConfig": {"url": "https://example.com", "caBundle": "eA=="}, "conversionReviewVersions": ["v2"]});
        assert_eq!(
            broken(json!({"strategy": "Webhook", "webhook": bad})),
            [
                "conversion.webhookClientConfig.caBundle: \"eA==\": data does not contain any valid RSA or ECDSA certificates",
                "conversion.conversionReviewVersions: [\"v2\"]: must include at least one of v1, v1beta1",
            ]
        );
    }
}
