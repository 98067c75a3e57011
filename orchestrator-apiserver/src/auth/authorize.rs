//! Whether somebody may: the seam, and the rules that hold without roles.

use orchestrator_core::{
    client::UserInfo,
    status::{ApiError, ApiResult, Reason, Subject},
};

use super::{
    authenticate::AUTHENTICATED,
    rules::{PathRule, ResourceRule, Rules},
};

/// Decides what a user may do.
pub trait Authorizer: Send + Sync + std::fmt::Debug {
    /// Whether a user may do this to a resource.
    fn authorize(&self, user: &UserInfo, attributes: &Attributes<'_>) -> Decision;

    /// Whether a user may read or write a path that is no resource, such as `/healthz`.
    fn authorize_path(&self, user: &UserInfo, verb: &str, path: &str) -> Decision;

    /// All that a user may do in a namespace, for people to look at. An authorizer that cannot tell says so.
    fn rules(&self, _user: &UserInfo, _namespace: &str) -> Rules {
        Rules { incomplete: Some("the authorizer does not tell its rules".to_owned()), ..Rules::default() }
    }
}

/// What somebody wants to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes<'a> {
    /// Such as `get` or `deletecollection`.
    pub verb: &'a str,
    /// Empty for the core group.
    pub group: &'a str,
    /// Such as `v1`.
    pub version: &'a str,
    /// The plural resource.
    pub resource: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    /// Empty for the cluster and for all namespaces.
    pub namespace: &'a str,
    /// Empty for collections.
    pub name: &'a str,
}

/// What an authorizer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Yes.
    Allow,
    /// No, whatever others say.
    Deny(String),
    /// Not from here; without another opinion that means no.
    NoOpinion,
}

impl Decision {
    /// The error of a decision that is not yes.
    pub(crate) fn allow(self, user: &UserInfo, attributes: &Attributes<'_>) -> ApiResult<()> {
        let reason = match self {
            Self::Allow => return Ok(()),
            Self::Deny(reason) => format!(": {reason}"),
            Self::NoOpinion => String::new(),
        };
        let Attributes { verb, group, resource, subresource, namespace, name, .. } = *attributes;
        let resource_path =
            if subresource.is_empty() { resource.to_owned() } else { format!("{resource}/{subresource}") };
        let place = if namespace.is_empty() {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace {namespace:?}")
        };
        let why = format!(
            "User {:?} cannot {verb} resource {resource_path:?} in API group {group:?} {place}{reason}",
            user.name
        );
        Err(ApiError::forbidden(Subject { group, resource, name }, &why))
    }

    /// The same for a path.
    pub(crate) fn allow_path(self, user: &UserInfo, verb: &str, path: &str) -> ApiResult<()> {
        if self == Self::Allow {
            return Ok(());
        }
        let details = Some(Default::default());
        let message = format!("forbidden: User {:?} cannot {verb} path {path:?}", user.name);
        Err(ApiError::with_details(Reason::Forbidden, message, details))
    }
}

/// The rules that hold without roles: administrators and the cluster's own components may do everything, everyone who is
/// known may look at what is served and ask about himself, and nobody else may do more than ask for health and version.
#[derive(Clone, Copy, Debug, Default)]
pub struct DefaultAuthorizer;

const OPEN_PATHS: [&str; 4] = ["/healthz", "/livez", "/readyz", "/version"];

const DISCOVERY_PATHS: [&str; 4] = ["/api", "/apis", "/openapi", "/.well-known"];

/// What everyone may ask about himself: a group, and its reviews.
const ABOUT_SELF: [(&str, &[&str]); 2] = [
    ("authorization.k8s.io", &["selfsubjectaccessreviews", "selfsubjectrulesreviews"]),
    ("authentication.k8s.io", &["selfsubjectreviews"]),
];

/// Components of the cluster that run with identities of their own.
const COMPONENTS: [&str; 4] =
    ["system:apiserver", "system:kube-controller-manager", "system:kube-scheduler", "system:kube-proxy"];

fn is_trusted(user: &UserInfo) -> bool {
    let in_group = |name: &str| user.groups.iter().any(|group| group == name);
    in_group("system:masters") || in_group("system:nodes") || COMPONENTS.contains(&user.name.as_str())
}

fn is_known(user: &UserInfo) -> bool {
    user.groups.iter().any(|group| group == AUTHENTICATED)
}

impl Authorizer for DefaultAuthorizer {
    fn authorize(&self, user: &UserInfo, attributes: &Attributes<'_>) -> Decision {
        let Attributes { verb, group, resource, .. } = *attributes;
        let is_review = |(of, reviews): &(&str, &[&str])| *of == group && reviews.contains(&resource);
        let about_self = verb == "create" && ABOUT_SELF.iter().any(is_review);
        if is_trusted(user) || (about_self && is_known(user)) { Decision::Allow } else { Decision::NoOpinion }
    }

    fn authorize_path(&self, user: &UserInfo, verb: &str, path: &str) -> Decision {
        let under = |roots: &[&str]| {
            roots.iter().any(|root| path == *root || path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/')))
        };
        let reads = verb == "get" || verb == "head";
        if is_trusted(user) || (reads && (under(&OPEN_PATHS) || (is_known(user) && under(&DISCOVERY_PATHS)))) {
            Decision::Allow
        } else {
            Decision::NoOpinion
        }
    }

    fn rules(&self, user: &UserInfo, _namespace: &str) -> Rules {
        if is_trusted(user) {
            let resources = vec![ResourceRule::new(&["*"], &["*"], &["*"])];
            return Rules { resources, paths: vec![PathRule::new(&["*"], ["*"])], incomplete: None };
        }
        let mut open = OPEN_PATHS.to_vec();
        let mut resources = Vec::new();
        if is_known(user) {
            open.extend(DISCOVERY_PATHS);
            resources = ABOUT_SELF.map(|(group, reviews)| ResourceRule::new(&["create"], &[group], reviews)).into();
        }
        let paths = open.iter().flat_map(|path| [(*path).to_owned(), format!("{path}/*")]);
        Rules { resources, paths: vec![PathRule::new(&["get", "head"], paths)], incomplete: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, groups: &[&str]) -> UserInfo {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        UserInfo { name: name.to_owned(), groups, ..UserInfo::default() }
    }

    #[test]
    fn what_is_listed_is_allowed() {
        let users = [user("root", &["system:masters"]), user("jane", &[AUTHENTICATED]), user("nobody", &[])];
        for user in &users {
            let rules = DefaultAuthorizer.rules(user, "default");
            assert_eq!(rules.incomplete, None);
            for rule in &rules.resources {
                for (verb, resource) in
                    rule.verbs.iter().flat_map(|verb| rule.resources.iter().map(move |it| (verb, it)))
                {
                    let attributes = Attributes { verb, group: &rule.groups[0], resource, ..Attributes::default() };
                    assert_eq!(DefaultAuthorizer.authorize(user, &attributes), Decision::Allow, "{attributes:?}");
                }
            }
            for rule in &rules.paths {
                for (verb, path) in rule.verbs.iter().flat_map(|verb| rule.paths.iter().map(move |it| (verb, it))) {
                    let path = path.replace('*', "some");
                    assert_eq!(DefaultAuthorizer.authorize_path(user, verb, &path), Decision::Allow, "{verb} {path}");
                }
            }
        }
        assert!(DefaultAuthorizer.rules(&users[2], "default").resources.is_empty());
    }
}
