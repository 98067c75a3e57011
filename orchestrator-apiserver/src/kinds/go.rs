//! Trees in the words of upstream's own structures, which some of its messages quote.
//!
//! Upstream quotes the structures it works on, not those of the API: every field is there, in the order of its source,
//! under its Go name.

use serde_json::{Map, Value};

use super::difference;

/// Structures: for each its fields, as name and form. The form is the value of an absent field (`s` text, `i` number,
/// `b` flag, `-` null; `?` leaves the field out) or the structure that a field holds (`T` itself, `*T` or nothing, `[T` a
/// list).
const STRUCTURES: &[(&str, &str)] = &[
    (
        "PodSpec",
        "Volumes [Volume InitContainers [Container Containers [Container EphemeralContainers [EphemeralContainer \
         RestartPolicy s TerminationGracePeriodSeconds - ActiveDeadlineSeconds - DNSPolicy s NodeSelector - \
         ServiceAccountName s AutomountServiceAccountToken - NodeName s SecurityContext *PodSecurityContext \
         ImagePullSecrets [Named Hostname s Subdomain s SetHostnameAsFQDN - Affinity *Affinity SchedulerName s \
         Tolerations [Toleration HostAliases [HostAlias PriorityClassName s Priority - PreemptionPolicy - DNSConfig \
         *DNSConfig ReadinessGates [ReadinessGate RuntimeClassName - Overhead - EnableServiceLinks - \
         TopologySpreadConstraints [Spread OS *Named SchedulingGates [Named ResourceClaims [Claim Resources \
         *Resources HostnameOverride - SchedulingGroup -",
    ),
    (
        "PodSecurityContext",
        "HostNetwork b HostPID b HostIPC b ShareProcessNamespace - HostUsers - SELinuxOptions *SELinux WindowsOptions - \
         RunAsUser - RunAsGroup - RunAsNonRoot - SupplementalGroups - SupplementalGroupsPolicy - FSGroup - \
         FSGroupChangePolicy - Sysctls [Variable SeccompProfile *Profile AppArmorProfile *Profile SELinuxChangePolicy -",
    ),
    (
        "Container",
        "Name s Image s Command - Args - WorkingDir s Ports [Port EnvFrom [EnvFrom Env [Env Resources Resources \
         ResizePolicy [Resize RestartPolicy - RestartPolicyRules - VolumeMounts [Mount VolumeDevices [Device \
         LivenessProbe *Probe ReadinessProbe *Probe StartupProbe *Probe Lifecycle *Lifecycle TerminationMessagePath s \
         TerminationMessagePolicy s ImagePullPolicy s SecurityContext *SecurityContext Stdin b StdinOnce b TTY b",
    ),
    (
        "EphemeralContainer",
        "Name s Image s Command - Args - WorkingDir s Ports [Port EnvFrom [EnvFrom Env [Env Resources Resources \
         ResizePolicy [Resize RestartPolicy - RestartPolicyRules - VolumeMounts [Mount VolumeDevices [Device \
         LivenessProbe *Probe ReadinessProbe *Probe StartupProbe *Probe Lifecycle *Lifecycle TerminationMessagePath s \
         TerminationMessagePolicy s ImagePullPolicy s SecurityContext *SecurityContext Stdin b StdinOnce b TTY b \
         TargetContainerName s",
    ),
    (
        "SecurityContext",
        "Capabilities *Capabilities Privileged - SELinuxOptions *SELinux WindowsOptions - RunAsUser - RunAsGroup - \
         RunAsNonRoot - ReadOnlyRootFilesystem - AllowPrivilegeEscalation - ProcMount - SeccompProfile *Profile \
         AppArmorProfile *Profile",
    ),
    (
        "Volume",
        "Name s HostPath *HostPath EmptyDir *EmptyDir GCEPersistentDisk - AWSElasticBlockStore - GitRepo - Secret \
         *SecretFiles NFS *NFS ISCSI - Glusterfs - PersistentVolumeClaim *ClaimVolume RBD - Quobyte - FlexVolume - \
         Cinder - CephFS - Flocker - DownwardAPI *DownwardFiles FC - AzureFile - ConfigMap *ConfigFiles VsphereVolume - \
         AzureDisk - PhotonPersistentDisk - Projected *Projected PortworxVolume - ScaleIO - StorageOS - CSI *CSIVolume \
         Ephemeral - Image *ImageVolume",
    ),
    (
        "PersistentVolumeSource",
        "GCEPersistentDisk - AWSElasticBlockStore - HostPath *HostPath Glusterfs - NFS *NFS RBD - Quobyte - ISCSI - \
         FlexVolume - Cinder - CephFS - FC - Flocker - AzureFile - VsphereVolume - AzureDisk - PhotonPersistentDisk - \
         PortworxVolume - ScaleIO - Local *Local StorageOS - CSI *DriverVolume",
    ),
    ("CSIVolume", "Driver s ReadOnly - FSType - VolumeAttributes - NodePublishSecretRef *Named"),
    ("ImageVolume", "Reference s PullPolicy s"),
    (
        "DriverVolume",
        "Driver s VolumeHandle s ReadOnly b FSType s VolumeAttributes - ControllerPublishSecretRef *SecretRef \
         NodeStageSecretRef *SecretRef NodePublishSecretRef *SecretRef ControllerExpandSecretRef *SecretRef \
         NodeExpandSecretRef *SecretRef",
    ),
    ("SecretRef", "Name s Namespace s"),
    ("NodeDriver", "Name s NodeID s TopologyKeys - Allocatable *DriverRoom"),
    ("DriverRoom", "Count -"),
    ("VolumeNodeAffinity", "Required *NodeSelector"),
    ("Profile", "Type s LocalhostProfile -"),
    ("Local", "Path s FSType -"),
    ("HostPath", "Path s Type -"),
    ("EmptyDir", "Medium s SizeLimit -"),
    ("NFS", "Server s Path s ReadOnly b"),
    ("ClaimVolume", "ClaimName s ReadOnly b"),
    ("SecretFiles", "SecretName s Items [File DefaultMode - Optional -"),
    ("ConfigFiles", "Name s Items [File DefaultMode - Optional -"),
    ("DownwardFiles", "Items [DownwardFile DefaultMode -"),
    ("Projected", "Sources [Projection DefaultMode -"),
    (
        "Projection",
        "Secret *PartFiles DownwardAPI *DownwardItems ConfigMap *PartFiles ServiceAccountToken *Token \
         ClusterTrustBundle - PodCertificate -",
    ),
    ("PartFiles", "Name s Items [File Optional -"),
    ("DownwardItems", "Items [DownwardFile"),
    ("DownwardFile", "Path s FieldRef *FieldRef ResourceFieldRef - Mode -"),
    ("FieldRef", "APIVersion s FieldPath s"),
    ("Token", "Audience s ExpirationSeconds i Path s"),
    ("File", "Key s Path s Mode -"),
    ("TrustBundle", "Name - SignerName - LabelSelector *Selector Optional - Path s"),
    ("Resources", "Limits - Requests - Claims [ResourceClaim"),
    ("ResourceClaim", "Name s Request s"),
    ("Claim", "Name s ResourceClaimName - ResourceClaimTemplateName -"),
    ("Env", "Name s Value s ValueFrom *EnvSource"),
    (
        "EnvSource",
        "FieldRef *FieldRef ResourceFieldRef *ResourceRef ConfigMapKeyRef *KeyRef SecretKeyRef *KeyRef FileKeyRef \
         *FileKeyRef",
    ),
    ("ResourceRef", "ContainerName s Resource s Divisor s"),
    ("KeyRef", "Name s Key s Optional -"),
    ("FileKeyRef", "VolumeName s Path s Key s Optional -"),
    ("EnvFrom", "Prefix s ConfigMapRef *NameRef SecretRef *NameRef"),
    ("NameRef", "Name s Optional -"),
    ("Resize", "ResourceName s RestartPolicy s"),
    ("Device", "Name s DevicePath s"),
    (
        "Probe",
        "Exec *Exec HTTPGet *HTTPGet TCPSocket *TCPSocket GRPC *GRPC InitialDelaySeconds i TimeoutSeconds i \
         PeriodSeconds i SuccessThreshold i FailureThreshold i TerminationGracePeriodSeconds -",
    ),
    ("Lifecycle", "PostStart *Hook PreStop *Hook StopSignal -"),
    ("Hook", "Exec *Exec HTTPGet *HTTPGet TCPSocket *TCPSocket Sleep *Sleep"),
    ("Exec", "Command -"),
    ("HTTPGet", "Path s Port i Host s Scheme s HTTPHeaders [Variable"),
    ("TCPSocket", "Port i Host s"),
    ("GRPC", "Port i Service -"),
    ("Sleep", "Seconds i"),
    ("Variable", "Name s Value s"),
    ("SELinux", "User s Role s Type s Level s"),
    ("Capabilities", "Add - Drop -"),
    ("HostAlias", "IP s Hostnames -"),
    ("DNSConfig", "Nameservers - Searches - Options [DNSOption"),
    ("DNSOption", "Name s Value -"),
    ("ReadinessGate", "ConditionType s"),
    (
        "Spread",
        "MaxSkew i TopologyKey s WhenUnsatisfiable s LabelSelector *Selector MinDomains - NodeAffinityPolicy - \
         NodeTaintsPolicy - MatchLabelKeys -",
    ),
    ("Affinity", "NodeAffinity *NodeAffinity PodAffinity *PodAffinity PodAntiAffinity *PodAffinity"),
    (
        "NodeAffinity",
        "RequiredDuringSchedulingIgnoredDuringExecution *NodeSelector PreferredDuringSchedulingIgnoredDuringExecution \
         [NodePreference",
    ),
    ("NodeSelector", "NodeSelectorTerms [NodeTerm"),
    ("NodeTerm", "MatchExpressions [NodeRequirement MatchFields [NodeRequirement"),
    ("NodeRequirement", "Key s Operator s Values -"),
    ("NodePreference", "Weight i Preference NodeTerm"),
    (
        "PodAffinity",
        "RequiredDuringSchedulingIgnoredDuringExecution [PodTerm PreferredDuringSchedulingIgnoredDuringExecution \
         [PodPreference",
    ),
    ("PodPreference", "Weight i PodAffinityTerm PodTerm"),
    (
        "PodTerm",
        "LabelSelector *Selector Namespaces - TopologyKey s NamespaceSelector *Selector MatchLabelKeys - \
         MismatchLabelKeys -",
    ),
    ("Mount", "Name s ReadOnly b RecursiveReadOnly - MountPath s SubPath s MountPropagation - SubPathExpr s"),
    ("Port", "Name s HostPort i ContainerPort i Protocol s HostIP s"),
    ("Toleration", "Key s Operator s Value s Effect s TolerationSeconds -"),
    ("Named", "Name s"),
    (
        "ClaimSpec",
        "AccessModes - Selector - Resources ClaimResources VolumeName s StorageClassName - VolumeMode - DataSource - \
         DataSourceRef - VolumeAttributesClassName -",
    ),
    ("ClaimResources", "Limits - Requests -"),
    ("ServicePort", "Name s Protocol s AppProtocol - Port i TargetPort i NodePort i"),
    ("Selector", "matchLabels ? matchExpressions ?"),
    ("Taint", "Key s Value s Effect s TimeAdded -"),
    ("NodeAddress", "Type s Address s"),
    ("Budget", "MinAvailable - Selector - MaxUnavailable - UnhealthyPodEvictionPolicy -"),
    ("AuditAnnotation", "Key s ValueExpression s"),
    ("RoleRef", "APIGroup s Kind s Name s"),
    ("Distinguisher", "Type s"),
    ("RollingStrategy", "Type s RollingUpdate *RollingBounds"),
    ("RollingBounds", "MaxUnavailable i MaxSurge i"),
    ("SetStrategy", "Type s RollingUpdate *SetRollingUpdate"),
    ("SetRollingUpdate", "Partition i MaxUnavailable -"),
    ("ScopeSelector", "MatchExpressions [ScopeRequirement"),
    ("ScopeRequirement", "ScopeName s Operator s Values -"),
    ("SuccessPolicy", "Rules [SuccessRule"),
    ("SuccessRule", "SucceededIndexes - SucceededCount -"),
];

/// A tree as upstream's structure of that name has it, in one line of JSON.
pub(crate) fn show(structure: &str, tree: &Value) -> String {
    let mut out = String::new();
    write(&shape(structure, tree), None, &mut out);
    out
}

/// A template of pods: its metadata stands in line, in the names of the API.
pub(crate) fn template(template: &Value) -> String {
    let metadata = match plain(template.get("metadata").unwrap_or(&Value::Null)) {
        Shape::Members(members) => members,
        Shape::Leaf(_) | Shape::List(_) => Vec::new(),
    };
    let spec = ("Spec".to_owned(), shape("PodSpec", template.get("spec").unwrap_or(&Value::Null)));
    let mut out = String::new();
    write(&Shape::Members(metadata.into_iter().chain([spec]).collect()), None, &mut out);
    out
}

/// What distinguishes two trees, line by line, as upstream's structures have them.
pub(crate) fn difference(structure: &str, old: &Value, new: &Value) -> String {
    let text = |tree: &Value| {
        let mut out = String::new();
        write(&shape(structure, tree), Some(0), &mut out);
        out
    };
    difference::unified(&text(old), &text(new))
}

/// A tree whose members keep their order.
enum Shape {
    Leaf(Value),
    List(Vec<Shape>),
    Members(Vec<(String, Shape)>),
}

fn fields(structure: &str) -> Option<impl Iterator<Item = (&'static str, &'static str)>> {
    let (_, fields) = STRUCTURES.iter().find(|(name, _)| *name == structure)?;
    let words: Vec<&'static str> = fields.split_whitespace().collect();
    Some(words.chunks_exact(2).filter_map(|pair| Some((*pair.first()?, *pair.get(1)?))).collect::<Vec<_>>().into_iter())
}

fn shape(structure: &str, tree: &Value) -> Shape {
    let Some(fields) = fields(structure) else { return plain(tree) };
    let moved = (structure == "PodSpec").then(|| with_host_flags(tree));
    let tree = moved.as_ref().unwrap_or(tree);
    let there = fields.filter(|(name, form)| *form != "?" || !member(tree, name).is_null());
    Shape::Members(there.map(|(name, form)| (name.to_owned(), field(form, member(tree, name)))).collect())
}

/// Upstream keeps the flags of host namespaces in the security context.
fn with_host_flags(spec: &Value) -> Value {
    let mut spec = spec.clone();
    let names = ["hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace", "hostUsers"];
    let flags: Vec<(&str, Value)> = names.iter().filter_map(|name| Some((*name, spec.get(name)?.clone()))).collect();
    if let Some(context) = spec.get_mut("securityContext").and_then(Value::as_object_mut) {
        for (name, flag) in flags {
            context.insert(name.to_owned(), flag);
        }
    }
    spec
}

/// Members are looked up regardless of case: `DNSPolicy` is `dnsPolicy`.
fn member<'a>(tree: &'a Value, name: &str) -> &'a Value {
    let members = tree.as_object().into_iter().flatten();
    let mut found = members.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    found.next().unwrap_or(&Value::Null)
}

fn field(form: &str, value: &Value) -> Shape {
    let zero = |zero: Value| if value.is_null() { Shape::Leaf(zero) } else { plain(value) };
    match form {
        "s" => zero("".into()),
        "i" => zero(0.into()),
        "b" => zero(false.into()),
        "-" | "?" => plain(value),
        _ => match (form.strip_prefix('['), form.strip_prefix('*')) {
            (Some(of), _) => match value.as_array() {
                Some(items) => Shape::List(items.iter().map(|item| shape(of, item)).collect()),
                None => Shape::Leaf(Value::Null),
            },
            (_, Some(_)) if value.is_null() => Shape::Leaf(Value::Null),
            (_, Some(of)) => shape(of, value),
            _ => shape(form, value),
        },
    }
}

fn plain(value: &Value) -> Shape {
    match value {
        Value::Array(items) => Shape::List(items.iter().map(plain).collect()),
        Value::Object(members) => Shape::Members(sorted(members)),
        leaf => Shape::Leaf(leaf.clone()),
    }
}

fn sorted(members: &Map<String, Value>) -> Vec<(String, Shape)> {
    let mut members: Vec<_> = members.iter().map(|(name, value)| (name.clone(), plain(value))).collect();
    members.sort_by(|left, right| left.0.cmp(&right.0));
    members
}

/// JSON in one line, or indented by one space for each level.
fn write(shape: &Shape, indent: Option<usize>, out: &mut String) {
    let inner = indent.map(|indent| indent + 1);
    let line = |out: &mut String, indent: Option<usize>| {
        if let Some(indent) = indent {
            out.push('\n');
            out.push_str(&" ".repeat(indent));
        }
    };
    let (open, close, count) = match shape {
        Shape::Leaf(value) => return out.push_str(&value.to_string()),
        Shape::List(items) => ('[', ']', items.len()),
        Shape::Members(members) => ('{', '}', members.len()),
    };
    out.push(open);
    for index in 0..count {
        if index > 0 {
            out.push(',');
        }
        line(out, inner);
        match shape {
            Shape::List(items) => items.get(index).into_iter().for_each(|item| write(item, inner, out)),
            Shape::Members(members) => members.get(index).into_iter().for_each(|(name, value)| {
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push_str(if indent.is_some() { ": " } else { ":" });
                write(value, inner, out);
            }),
            Shape::Leaf(_) => {}
        }
    }
    if count > 0 {
        line(out, indent);
    }
    out.push(close);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn structures_show_all_their_fields() {
        let shown = show("ServicePort", &json!({"protocol": "TCP", "port": 80, "targetPort": 0}));
        let expected = r#"{"Name":"","Protocol":"TCP","AppProtocol":null,"Port":80,"TargetPort":0,"NodePort":0}"#;
        assert_eq!(shown, expected);
    }

    #[test]
    fn structures_within_others_are_upstreams_too() {
        let pod = json!({
            "affinity": {"nodeAffinity": {}},
            "containers": [{"env": [{"name": "a", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}],
        });
        let shown = show("PodSpec", &pod);
        let source = r#""ValueFrom":{"FieldRef":null,"ResourceFieldRef":null,"ConfigMapKeyRef":null,"SecretKeyRef":{"Name":"s","Key":"k","Optional":null},"FileKeyRef":null}"#;
        assert!(shown.contains(source), "{shown}");
        let affinity = r#""Affinity":{"NodeAffinity":{"RequiredDuringSchedulingIgnoredDuringExecution":null,"PreferredDuringSchedulingIgnoredDuringExecution":null},"PodAffinity":null,"PodAntiAffinity":null}"#;
        assert!(shown.contains(affinity), "{shown}");
        let known = |form: &str| {
            let of = form.trim_start_matches(['[', '*']);
            matches!(form, "s" | "i" | "b" | "-" | "?") || STRUCTURES.iter().any(|(name, _)| *name == of)
        };
        for (structure, _) in STRUCTURES {
            for (name, form) in fields(structure).unwrap() {
                assert!(known(form), "{structure}.{name}: {form}");
            }
        }
    }

    #[test]
    fn differences_are_shown_in_their_surroundings() {
        let spec = |size: &str| json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}});
        let expected = "@@ -6,7 +6,7 @@\n  \"Resources\": {\n   \"Limits\": null,\n   \"Requests\": {\n-   \"storage\": \
                        \"1Gi\"\n+   \"storage\": \"512Mi\"\n   }\n  },\n  \"VolumeName\": \"\",\n";
        assert_eq!(difference("ClaimSpec", &spec("1Gi"), &spec("512Mi")), expected);
    }
}
