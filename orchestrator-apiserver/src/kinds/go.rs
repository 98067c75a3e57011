//! Trees in the words of upstream's own structures, which some of its messages quote.
//!
//! Upstream quotes the structures it works on, not those of the API: every field is there, in the order of its source,
//! under its Go name.

use serde_json::{Map, Value};

/// Lines around a difference.
const CONTEXT: usize = 3;
/// Products of line counts beyond which a difference is shown coarsely, in cells.
const DIFFERENCE_CELLS: usize = 1 << 20;

/// Structures: for each its fields, as name and form. The form is the value of an absent field (`s` text, `i` number,
/// `b` flag, `-` null) or the structure that a field holds (`T` itself, `*T` or nothing, `[T` a list).
const STRUCTURES: [(&str, &str); 29] = [
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
         AzureDisk - PhotonPersistentDisk - Projected *Projected PortworxVolume - ScaleIO - StorageOS - CSI - Ephemeral - \
         Image -",
    ),
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
    ("Resources", "Limits - Requests - Claims -"),
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
    let lines = |tree: &Value| {
        let mut out = String::new();
        write(&shape(structure, tree), Some(0), &mut out);
        out.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    unified(&lines(old), &lines(new))
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
    Shape::Members(fields.map(|(name, form)| (name.to_owned(), field(form, member(tree, name)))).collect())
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
        "-" => plain(value),
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

/// One line of a difference.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Edit<'a> {
    Same(&'a str),
    Old(&'a str),
    New(&'a str),
}

fn unified(old: &[String], new: &[String]) -> String {
    let edits = edits(old, new);
    let changed: Vec<usize> =
        (0..edits.len()).filter(|index| !matches!(edits.get(*index), Some(Edit::Same(_)))).collect();
    let mut hunks: Vec<(usize, usize)> = Vec::new();
    for index in changed {
        let (start, end) = (index.saturating_sub(CONTEXT), (index + CONTEXT + 1).min(edits.len()));
        match hunks.last_mut() {
            Some((_, last)) if *last >= start => *last = end,
            _ => hunks.push((start, end)),
        }
    }
    hunks.into_iter().map(|(start, end)| hunk(&edits, start, end)).collect()
}

fn hunk(edits: &[Edit<'_>], start: usize, end: usize) -> String {
    let count = |edits: &[Edit<'_>], new: bool| {
        edits
            .iter()
            .filter(|edit| if new { !matches!(edit, Edit::Old(_)) } else { !matches!(edit, Edit::New(_)) })
            .count()
    };
    let (before, inside) = (edits.get(..start).unwrap_or_default(), edits.get(start..end).unwrap_or_default());
    let place = |new: bool| format!("{},{}", count(before, new) + 1, count(inside, new));
    let mut out = format!("@@ -{} +{} @@\n", place(false), place(true));
    for edit in inside {
        let (sign, line) = match edit {
            Edit::Same(line) => (' ', line),
            Edit::Old(line) => ('-', line),
            Edit::New(line) => ('+', line),
        };
        out.push(sign);
        out.push_str(line);
        out.push('\n');
    }
    out
}

/// The lines of both sides, those that are common once. Old lines stand before new ones.
fn edits<'a>(old: &'a [String], new: &'a [String]) -> Vec<Edit<'a>> {
    let prefix = old.iter().zip(new).take_while(|(left, right)| left == right).count();
    let (old_rest, new_rest) = (old.get(prefix..).unwrap_or_default(), new.get(prefix..).unwrap_or_default());
    let suffix = old_rest.iter().rev().zip(new_rest.iter().rev()).take_while(|(left, right)| left == right).count();
    let middle = |lines: &'a [String]| lines.get(prefix..lines.len() - suffix).unwrap_or_default();
    let (old_middle, new_middle) = (middle(old), middle(new));
    let same = |lines: &'a [String]| lines.iter().map(|line| Edit::Same(line.as_str())).collect::<Vec<_>>();
    let mut out = same(old.get(..prefix).unwrap_or_default());
    if old_middle.len().saturating_mul(new_middle.len()) > DIFFERENCE_CELLS {
        out.extend(old_middle.iter().map(|line| Edit::Old(line)));
        out.extend(new_middle.iter().map(|line| Edit::New(line)));
    } else {
        common_lines(old_middle, new_middle, &mut out);
    }
    out.extend(same(old.get(old.len() - suffix..).unwrap_or_default()));
    out
}

/// The longest common subsequence of lines decides which of them stay.
fn common_lines<'a>(old: &'a [String], new: &'a [String], out: &mut Vec<Edit<'a>>) {
    let width = new.len() + 1;
    let mut lengths = vec![0_usize; (old.len() + 1) * width];
    let at = |lengths: &[usize], row: usize, column: usize| lengths.get(row * width + column).copied().unwrap_or(0);
    for row in (0..old.len()).rev() {
        for column in (0..new.len()).rev() {
            let length = if old.get(row) == new.get(column) {
                at(&lengths, row + 1, column + 1) + 1
            } else {
                at(&lengths, row + 1, column).max(at(&lengths, row, column + 1))
            };
            if let Some(cell) = lengths.get_mut(row * width + column) {
                *cell = length;
            }
        }
    }
    let (mut row, mut column) = (0, 0);
    loop {
        match (old.get(row), new.get(column)) {
            (Some(left), Some(right)) if left == right => {
                out.push(Edit::Same(left));
                (row, column) = (row + 1, column + 1);
            }
            (Some(left), right)
                if right.is_none() || at(&lengths, row + 1, column) >= at(&lengths, row, column + 1) =>
            {
                out.push(Edit::Old(left));
                row += 1;
            }
            (_, Some(right)) => {
                out.push(Edit::New(right));
                column += 1;
            }
            _ => return,
        }
    }
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
    fn differences_are_shown_in_their_surroundings() {
        let spec = |size: &str| json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}});
        let expected = "@@ -6,7 +6,7 @@\n  \"Resources\": {\n   \"Limits\": null,\n   \"Requests\": {\n-   \"storage\": \
                        \"1Gi\"\n+   \"storage\": \"512Mi\"\n   }\n  },\n  \"VolumeName\": \"\",\n";
        assert_eq!(difference("ClaimSpec", &spec("1Gi"), &spec("512Mi")), expected);
    }
}
