//! Extenders over HTTP, as the configuration names them.

use std::{collections::BTreeSet, fs, io::Read, sync::Arc, time::Duration};

use k8s_openapi::ByteString;

use super::{ConfigError, ConfigReason, Fields};
use crate::{
    extender::Extender,
    http::{HttpExtender, HttpExtenderOptions, InvalidExtender, TlsOptions},
    limits::{CERTIFICATE_BYTES, EXTENDER_LONGEST},
};

/// All extenders, and the resources that only they look at.
#[derive(Debug, Default)]
pub(super) struct Extenders {
    /// Those that may fail come last.
    pub(super) all: Vec<Arc<dyn Extender>>,
    pub(super) ignored_resources: Vec<String>,
}

pub(super) fn read_all(fields: &mut Fields) -> Result<Extenders, ConfigError> {
    let mut extenders = Extenders::default();
    let (mut managed, mut binders) = (BTreeSet::new(), 0);
    for (path, item) in fields.list("extenders")?.unwrap_or_default() {
        let extender = read(Fields::new(path, item)?, &mut managed, &mut extenders.ignored_resources)?;
        binders += usize::from(extender.duties().binds);
        extenders.all.push(Arc::new(extender));
    }
    if binders > 1 {
        let found = format!("found {binders} extenders implementing bind");
        return Err(fields.invalid("extenders", found, "only one extender can implement bind"));
    }
    extenders.all.sort_by_key(|extender| extender.is_ignorable());
    Ok(extenders)
}

fn read(
    mut fields: Fields,
    managed: &mut BTreeSet<String>,
    ignored: &mut Vec<String>,
) -> Result<HttpExtender, ConfigError> {
    let mut verb = |field: &str| Ok::<_, ConfigError>(fields.text(field)?.unwrap_or_default());
    let (url_prefix, filter_verb, prioritize_verb) = (verb("urlPrefix")?, verb("filterVerb")?, verb("prioritizeVerb")?);
    let (preempt_verb, bind_verb) = (verb("preemptVerb")?, verb("bindVerb")?);
    let weight = fields.number("weight", i64::MIN, i64::MAX)?.unwrap_or(0);
    if !prioritize_verb.is_empty() && weight <= 0 {
        return Err(fields.invalid("weight", weight, "must have a positive weight applied to it"));
    }
    let timeout = fields.time("httpTimeout", Duration::ZERO, "must be zero or positive")?;
    let timeout = timeout.filter(|time| !time.is_zero()).unwrap_or(EXTENDER_LONGEST);
    let enable_https = fields.flag("enableHTTPS")?.unwrap_or(false);
    let tls = tls(fields.fields("tlsConfig")?)?;
    let mut managed_resources = Vec::new();
    for (path, item) in fields.list("managedResources")?.unwrap_or_default() {
        let mut item = Fields::new(path, item)?;
        let name = item.text("name")?.unwrap_or_default();
        if !is_extended(&name) {
            return Err(item.invalid("name", name, "is an invalid extended resource name"));
        }
        if !managed.insert(name.clone()) {
            return Err(ConfigError::new(item.path("name"), ConfigReason::Duplicate(name)));
        }
        if item.flag("ignoredByScheduler")?.unwrap_or(false) {
            ignored.push(name.clone());
        }
        item.end()?;
        managed_resources.push(name);
    }
    let options = HttpExtenderOptions {
        url_prefix,
        filter_verb,
        prioritize_verb,
        preempt_verb,
        bind_verb,
        weight,
        enable_https,
        tls,
        timeout,
        node_cache_capable: fields.flag("nodeCacheCapable")?.unwrap_or(false),
        managed_resources,
        ignorable: fields.flag("ignorable")?.unwrap_or(false),
    };
    let path = |field: &str| fields.path(field);
    let paths = (path("urlPrefix"), path("tlsConfig"));
    fields.end()?;
    let url = options.url_prefix.clone();
    HttpExtender::new(options).map_err(|error| {
        let expected = error.to_string();
        match error {
            InvalidExtender::Url => ConfigError::new(paths.0, ConfigReason::Invalid { value: url, expected }),
            _ => ConfigError::new(paths.1, ConfigReason::Invalid { value: "it".to_owned(), expected }),
        }
    })
}

fn tls(mut fields: Fields) -> Result<TlsOptions, ConfigError> {
    let insecure = fields.flag("insecure")?.unwrap_or(false);
    let server_name = fields.text("serverName")?.filter(|name| !name.is_empty());
    let authorities = pem(&mut fields, "ca")?;
    let (certificate, key) = (pem(&mut fields, "cert")?, pem(&mut fields, "key")?);
    let path = fields.path("certData");
    fields.end()?;
    let identity = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => return Err(ConfigError::new(path, ConfigReason::Unsupported("a certificate and its key come together"))),
    };
    Ok(TlsOptions { insecure, server_name, authorities, identity })
}

/// What a field has in itself, or the file that another names.
fn pem(fields: &mut Fields, kind: &str) -> Result<Option<Vec<u8>>, ConfigError> {
    let (data, file) = (format!("{kind}Data"), format!("{kind}File"));
    let data = fields.object::<ByteString>(&data)?.map(|data| data.0).filter(|data| !data.is_empty());
    let Some(name) = fields.text(&file)?.filter(|name| !name.is_empty()) else { return Ok(data) };
    if data.is_some() {
        return Ok(data);
    }
    let read = |name: &str| {
        let mut bytes = Vec::new();
        fs::File::open(name)?.take(CERTIFICATE_BYTES).read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(bytes)
    };
    read(&name).map(Some).map_err(|error| fields.invalid(&file, name, &error.to_string()))
}

/// Whether a resource is nobody's but an extension's.
fn is_extended(name: &str) -> bool {
    let Some((domain, resource)) = name.split_once('/') else { return false };
    let is_native = domain == "kubernetes.io" || domain.ends_with(".kubernetes.io");
    let characters = |text: &str, more: &str| {
        !text.is_empty() && text.chars().all(|it| it.is_ascii_alphanumeric() || more.contains(it))
    };
    !is_native
        && !name.starts_with("requests.")
        && characters(domain, "-.")
        && characters(resource, "-_.")
        && name.len() <= 253 + 64
}
