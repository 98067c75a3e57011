//! Content negotiation: of the forms that this server has, the one that a client likes best.
//!
//! Upstream: <https://kubernetes.io/docs/reference/using-api/api-concepts/#alternate-representations-of-resources>.

use http::{HeaderMap, header};
use orchestrator_core::status::{ApiError, ApiResult, Reason};

/// How clients ask for OpenAPI 2 in protobuf.
const OPEN_API_PROTOBUF: [&str; 2] =
    ["com.github.proto-openapi.spec.v2@v1.0+protobuf", "com.github.proto-openapi.spec.v2.v1.0+protobuf"];

/// The versions of the group `meta.k8s.io`, and how objects name them; they are alike.
const META_VERSIONS: [(&str, &str); 2] = [("v1", "meta.k8s.io/v1"), ("v1beta1", "meta.k8s.io/v1beta1")];

/// How something is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Json,
    Yaml,
    Protobuf,
}

/// How objects are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    /// As they are.
    Whole,
    /// As rows of a table.
    Table,
    /// Their metadata.
    Partial,
}

/// What an answer looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Style {
    pub(super) form: Form,
    pub(super) view: View,
    /// The version of the group `meta.k8s.io` that tables and metadata are in, as `apiVersion`.
    pub(super) meta_version: &'static str,
}

/// What discovery looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Discovery {
    /// A document for each group version.
    Single(Form),
    /// All in one document, in JSON.
    Aggregated,
}

impl Form {
    /// Those of built-in kinds, of metadata and of errors.
    pub(super) const ALL: &'static [Self] = &[Self::Json, Self::Yaml, Self::Protobuf];
    /// Those of whole objects of a custom kind.
    pub(super) const CUSTOM: &'static [Self] = &[Self::Json, Self::Yaml];

    pub(super) fn media(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }

    /// Whether the events of a watch come in it.
    fn streams(self) -> bool {
        self != Self::Yaml
    }
}

/// What a client accepts, the best first.
#[derive(Clone, Debug)]
pub(super) struct Accept(Vec<Clause>);

/// One of the accepted types.
#[derive(Clone, Debug)]
struct Clause {
    of: String,
    sub: String,
    quality: f32,
    parameters: Vec<(String, String)>,
}

/// What an object is to be turned into.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Target<'a> {
    group: &'a str,
    version: &'a str,
    kind: &'a str,
}

impl Accept {
    /// Of a request.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        Self::parse(headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default())
    }

    fn parse(header: &str) -> Self {
        let header = if header.is_empty() { "*/*" } else { header };
        let mut clauses: Vec<Clause> = header.split(',').filter_map(Clause::parse).collect();
        clauses.sort_by(|left, right| {
            let by_quality = right.quality.total_cmp(&left.quality);
            let wildcards = |clause: &Clause| (clause.of == "*", clause.sub == "*");
            by_quality.then_with(|| wildcards(left).cmp(&wildcards(right)))
        });
        Self(clauses)
    }

    /// For objects and lists of a kind that as a whole has these forms.
    pub(super) fn object(&self, whole: &[Form]) -> ApiResult<Style> {
        self.style(whole).ok_or_else(|| not_acceptable(Form::ALL.iter().map(|form| form.media().to_owned())))
    }

    /// For the events of a watch.
    pub(super) fn watch(&self, whole: &[Form]) -> ApiResult<Style> {
        // What is liked best has to be one that streams, as upstream.
        let streams = Form::ALL.iter().filter(|form| form.streams());
        let found = self.style(whole).filter(|style| style.form.streams());
        found.ok_or_else(|| not_acceptable(streams.map(|form| format!("{};stream=watch", form.media()))))
    }

    fn style(&self, whole: &[Form]) -> Option<Style> {
        self.choose(Form::ALL, |form, target| {
            let (view, meta_version) = view(form, target)?;
            (view != View::Whole || whole.contains(&form)).then_some(Style { form, view, meta_version })
        })
    }

    /// For errors, which come in JSON where nothing else is accepted.
    pub(super) fn error(&self) -> Form {
        self.choose(Form::ALL, |form, target| target.is_none().then_some(form)).unwrap_or(Form::Json)
    }

    /// For lists of groups and resources. Some of them come all in one document.
    pub(super) fn discovery(&self, aggregates: bool) -> ApiResult<Discovery> {
        let aggregated = Target { group: "apidiscovery.k8s.io", version: "v2", kind: "APIGroupDiscoveryList" };
        let found = self.choose(Form::ALL, |form, target| match target {
            None => Some(Discovery::Single(form)),
            Some(target) if aggregates && form == Form::Json && target == aggregated => Some(Discovery::Aggregated),
            Some(_) => None,
        });
        found.ok_or_else(|| not_acceptable(Form::ALL.iter().map(|form| form.media().to_owned())))
    }

    /// For OpenAPI 2: whether in protobuf. `None` where neither that nor JSON is accepted.
    pub(super) fn open_api_in_protobuf(&self) -> Option<bool> {
        self.0.iter().find_map(|clause| {
            let is = |sub: &str| clause.of == "application" && clause.sub == sub;
            let is_protobuf = OPEN_API_PROTOBUF.into_iter().any(is);
            (is_protobuf || clause.fits("application", "json")).then_some(is_protobuf)
        })
    }

    /// The first form that fits the first clause that any form fits.
    fn choose<T>(&self, forms: &[Form], fits: impl Fn(Form, Option<Target<'_>>) -> Option<T>) -> Option<T> {
        self.0.iter().find_map(|clause| {
            let of_type = forms.iter().filter(|form| clause.is(form.media()) && clause.streams(**form));
            of_type.copied().find_map(|form| fits(form, clause.target()))
        })
    }
}

/// How the target shows an object, where it can in this form, and in which version.
fn view(form: Form, target: Option<Target<'_>>) -> Option<(View, &'static str)> {
    let Some(Target { group, version, kind }) = target else { return Some((View::Whole, META_VERSIONS[0].1)) };
    let (_, meta_version) = META_VERSIONS.into_iter().find(|(known, _)| *known == version && group == "meta.k8s.io")?;
    let view = match kind {
        "Table" if form != Form::Protobuf => View::Table,
        "PartialObjectMetadata" | "PartialObjectMetadataList" => View::Partial,
        _ => return None,
    };
    Some((view, meta_version))
}

fn not_acceptable(forms: impl Iterator<Item = String>) -> ApiError {
    let forms = forms.collect::<Vec<_>>().join(", ");
    ApiError::new(Reason::NotAcceptable, format!("only the following media types are accepted: {forms}"))
}

impl Clause {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let (of, sub) = match parts.next()? {
            "*" => ("*", "*"),
            media => media.split_once('/').filter(|(_, sub)| !sub.contains('/'))?,
        };
        let parameters = parts.filter_map(|part| part.split_once('='));
        let parameters = parameters.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()));
        let (quality, parameters): (Vec<_>, Vec<_>) = parameters.partition(|(name, _)| name == "q");
        let quality = quality.first().map_or(1.0, |(_, quality)| quality.parse().unwrap_or(1.0));
        Some(Self { of: of.trim().to_owned(), sub: sub.trim().to_owned(), quality, parameters })
    }

    fn fits(&self, of: &str, sub: &str) -> bool {
        (self.of == of && (self.sub == sub || self.sub == "*")) || (self.of == "*" && self.sub == "*")
    }

    fn is(&self, media: &str) -> bool {
        media.split_once('/').is_some_and(|(of, sub)| self.fits(of, sub))
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// Whether the form has the kind of stream that is asked for, if one is.
    fn streams(&self, form: Form) -> bool {
        match self.parameter("stream") {
            None | Some("") => true,
            Some(stream) => stream == "watch" && form.streams(),
        }
    }

    fn target(&self) -> Option<Target<'_>> {
        let parameters = [self.parameter("g"), self.parameter("v"), self.parameter("as")];
        let is_given = parameters.iter().any(Option::is_some);
        let [group, version, kind] = parameters.map(Option::unwrap_or_default);
        is_given.then_some(Target { group, version, kind })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(header: &str, forms: &[Form]) -> Result<(Form, View), String> {
        let style = Accept::parse(header).object(forms).map_err(|error| error.message().to_owned())?;
        Ok((style.form, style.view))
    }

    #[test]
    fn the_first_that_is_there() {
        let cases = [
            ("", Form::Json),
            ("*/*", Form::Json),
            ("application/*", Form::Json),
            ("application/yaml", Form::Yaml),
            ("application/vnd.kubernetes.protobuf,application/json", Form::Protobuf),
            ("application/json, application/vnd.kubernetes.protobuf", Form::Json),
            ("application/json;q=0.4, application/vnd.kubernetes.protobuf;q=0.8", Form::Protobuf),
            ("text/html, */*;q=0.1", Form::Json),
            ("*/*, application/yaml", Form::Yaml),
            ("application/vnd.kubernetes.protobuf;stream=watch", Form::Protobuf),
            ("application/yaml;stream=watch, application/json", Form::Json),
            ("application/cbor, application/vnd.kubernetes.protobuf, application/json", Form::Protobuf),
        ];
        for (header, form) in cases {
            assert_eq!(object(header, Form::ALL), Ok((form, View::Whole)), "{header}");
        }
    }

    #[test]
    fn custom_kinds_have_no_protobuf_but_their_metadata_has() {
        let go = "application/vnd.kubernetes.protobuf,application/json";
        assert_eq!(object(go, Form::CUSTOM), Ok((Form::Json, View::Whole)));
        let refused = "only the following media types are accepted: application/json, application/yaml, \
                       application/vnd.kubernetes.protobuf";
        assert_eq!(object("application/vnd.kubernetes.protobuf", Form::CUSTOM), Err(refused.to_owned()));
        let partial = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        assert_eq!(object(partial, Form::CUSTOM), Ok((Form::Protobuf, View::Partial)));
    }

    #[test]
    fn views() {
        let partial = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
        assert_eq!(object(partial, Form::ALL), Ok((Form::Protobuf, View::Partial)));
        let table = "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1,application/json";
        assert_eq!(object(table, Form::ALL), Ok((Form::Json, View::Whole)));
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        assert_eq!(object(table, Form::CUSTOM), Ok((Form::Json, View::Table)));
        let old = Accept::parse("application/json;as=Table;v=v1beta1;g=meta.k8s.io").object(Form::ALL).unwrap();
        assert_eq!((old.view, old.meta_version), (View::Table, "meta.k8s.io/v1beta1"));
        assert!(object("application/json;as=Table;v=v2;g=meta.k8s.io", Form::ALL).is_err());
        assert!(object("application/json;as=Pod;v=v1;g=meta.k8s.io", Form::ALL).is_err());
    }

    #[test]
    fn errors_always_have_a_form() {
        let form = |header: &str| Accept::parse(header).error();
        assert_eq!(form("application/vnd.kubernetes.protobuf,application/json"), Form::Protobuf);
        assert_eq!(form("application/yaml;as=Table;v=v1;g=meta.k8s.io"), Form::Json);
        assert_eq!(form("text/html"), Form::Json);
    }

    #[test]
    fn watches_come_in_what_streams() {
        let watch = |header: &str| Accept::parse(header).watch(Form::ALL).map(|style| style.form);
        assert_eq!(watch("application/vnd.kubernetes.protobuf,application/json").unwrap(), Form::Protobuf);
        assert_eq!(
            watch("application/yaml").unwrap_err().message(),
            "only the following media types are accepted: application/json;stream=watch, \
             application/vnd.kubernetes.protobuf;stream=watch"
        );
    }

    #[test]
    fn documents() {
        let kubectl = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
        assert_eq!(Accept::parse(kubectl).discovery(true).unwrap(), Discovery::Aggregated);
        assert_eq!(Accept::parse(kubectl).discovery(false).unwrap(), Discovery::Single(Form::Json));
        let old = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        assert_eq!(Accept::parse(old).discovery(true).unwrap(), Discovery::Single(Form::Json));
        let open_api = |header: &str| Accept::parse(header).open_api_in_protobuf();
        assert_eq!(open_api("application/com.github.proto-openapi.spec.v2@v1.0+protobuf"), Some(true));
        assert_eq!(open_api("application/json, */*"), Some(false));
        assert_eq!(open_api("text/html"), None);
    }
}
