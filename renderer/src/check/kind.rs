//! What a document is: an object of ours, a list of objects, or other YAML. A repository contains more than a fleet, so other YAML
//! is reported once per file and never refused.

use flotta_api::GROUP;
use flotta_bundle::code;
use serde_json::Value;

use super::schema;
use crate::decode::Document;
use crate::finding::Finding;
use crate::place::Place;
use crate::pointer;

/// What a document is.
pub(super) enum Is {
    /// An object of this kind.
    Ours(&'static str),
    /// A list of objects, which are of this kind unless they have a kind themselves.
    List(Option<String>),
    /// It is not part of the fleet.
    Foreign(Foreign),
    /// It was meant to be an object of ours.
    Wrong(Box<Wrong>),
}

/// A document that was meant to be an object of ours, but is not one.
pub(super) struct Wrong {
    pub(super) finding: Finding,
    /// The kinds that it may have been meant to be. If there are none, it may have any objects.
    pub(super) kinds: Vec<&'static str>,
}

impl Wrong {
    fn of(finding: Finding, kinds: impl IntoIterator<Item = &'static str>) -> Is {
        let kinds = kinds.into_iter().collect();
        Is::Wrong(Box::new(Self { finding, kinds }))
    }
}

/// YAML that is not part of the fleet.
pub(super) struct Foreign {
    place: Place,
    what: String,
    help: Option<&'static str>,
}

pub(super) fn read(document: &Document) -> Is {
    let text = |key: &str| document.value.get(key).and_then(Value::as_str);
    let (version, kind) = (text("apiVersion"), text("kind"));
    match (version, kind) {
        (Some(version), Some(kind)) => of_kind(version, kind, document),
        _ if is_meant(version, kind, &document.value) => {
            let (given, missing) = match (version, kind) {
                (None, Some(_)) => ("/kind", "apiVersion"),
                (Some(_), None) => ("/apiVersion", "kind"),
                _ => ("", "kind"),
            };
            let message = format!("not a Kubernetes object: `{missing}` is missing");
            let place = document.key_place(given);
            let finding = Finding::error(code::UNSUPPORTED_KIND, place, message);
            match kind.and_then(alike) {
                Some(kind) => Wrong::of(finding, [kind]),
                None => Wrong::of(finding, of_our_group()),
            }
        }
        _ if has_objects(&document.value) => {
            let message = "a sequence of objects: only a `List` or separate documents are read";
            let finding = Finding::error(code::UNSUPPORTED_KIND, document.place(""), message);
            let help = "put `---` between the objects, or put them below `items` of `apiVersion: v1`, `kind: List`";
            Wrong::of(finding.with_help(help), [])
        }
        _ => Is::Foreign(of_no_kind(document)),
    }
}

/// The kinds that are not Kubernetes' own.
fn of_our_group() -> impl Iterator<Item = &'static str> {
    schema::kinds().filter(|kind| *kind != "ConfigMap")
}

/// Whether a document without `apiVersion` or `kind` was meant to be an object of ours: it has our group or a kind like ours, even
/// if only under a misspelt key.
fn is_meant(version: Option<&str>, kind: Option<&str>, value: &Value) -> bool {
    let is_ours = |text: &str| text.starts_with(GROUP) || alike(text).is_some();
    let says = |(key, value): (&String, &Value)| {
        let key = key.to_ascii_lowercase();
        let is_alike = |known| strsim::jaro_winkler(known, &key) > 0.8;
        ["apiversion", "kind"].into_iter().any(is_alike) && value.as_str().is_some_and(is_ours)
    };
    let mut fields = value.as_object().into_iter().flatten();
    version.is_some_and(|version| version.starts_with(GROUP))
        || kind.is_some_and(|kind| alike(kind).is_some())
        || fields.any(says)
}

/// Whether a document is a sequence with objects of our group in it.
fn has_objects(value: &Value) -> bool {
    let is_ours = |item: &Value| {
        let version = item.get("apiVersion").and_then(Value::as_str);
        version.is_some_and(|version| version.starts_with(GROUP))
    };
    value
        .as_array()
        .is_some_and(|items| items.iter().any(is_ours))
}

/// Returns a list. One without `items` is an error, because its objects would silently be missing from the fleet.
fn list(of: Option<String>, document: &Document) -> Is {
    if document.value.get("items").is_some_and(Value::is_array) {
        return Is::List(of);
    }
    let message = "a list needs `items`, which is a list of objects";
    let place = document.key_place("/kind");
    Wrong::of(Finding::error(code::SCHEMA, place, message), [])
}

fn of_kind(version: &str, kind: &str, document: &Document) -> Is {
    if let Some(kind) = schema::known(kind)
        && version == schema::version_of(kind)
    {
        return Is::Ours(kind);
    }
    if version == "v1" && kind == "List" {
        return list(None, document);
    }
    // An API server answers with such lists.
    if let Some(of) = kind.strip_suffix("List")
        && schema::known(of).is_some()
        && version == schema::version_of(of)
    {
        return list(Some(of.to_owned()), document);
    }
    let place = document.place("/apiVersion");
    let wrong = |message| Finding::error(code::UNSUPPORTED_KIND, place.clone(), message);
    if let Some(known) = alike(kind) {
        let message = format!("`{version}` `{kind}` is not a kind that Flotta knows");
        let expected = schema::version_of(known);
        let help = format!("did you mean `apiVersion: {expected}`, `kind: {known}`?");
        return Wrong::of(wrong(message).with_help(help), [known]);
    }
    if version.starts_with(GROUP) {
        let message = format!("this version of Flotta has no kind `{kind}` in `{version}`");
        return Wrong::of(wrong(message), of_our_group());
    }
    let mut foreign = Foreign {
        place,
        what: format!("`{kind}` of `{version}`"),
        help: None,
    };
    if is_encrypted(&document.value) {
        foreign.what += ", encrypted with SOPS,";
    } else if kind == "Kustomization" && version.starts_with("kustomize.config") {
        foreign.help = Some(KUSTOMIZATION);
    }
    Is::Foreign(foreign)
}

/// Returns the kind whose name is the same but for its case, or else the most similar one.
fn alike(kind: &str) -> Option<&'static str> {
    let mut kinds = schema::kinds();
    let same = kinds.find(|known| known.eq_ignore_ascii_case(kind));
    same.or_else(|| {
        let scores = schema::kinds().map(|known| (strsim::jaro_winkler(known, kind), known));
        let best = scores.max_by(|(a, _), (b, _)| a.total_cmp(b));
        best.filter(|(score, _)| *score > 0.95)
            .map(|(_, known)| known)
    })
}

const KUSTOMIZATION: &str = "it is not applied: if it changes the objects next to it, commit what `kustomize build` writes instead of them";

/// Describes YAML that is not an object, in the words that people use for it.
fn of_no_kind(document: &Document) -> Foreign {
    let value = &document.value;
    let has = |key: &str| value.get(key).is_some();
    let name = document.file_name().unwrap_or_default();
    let mut help = None;
    let what = if is_encrypted(value) {
        "a file encrypted with SOPS"
    } else if ["kustomization.yaml", "kustomization.yml"].contains(&name) {
        help = Some(KUSTOMIZATION);
        "a kustomization"
    } else if value.get("services").is_some_and(Value::is_object) {
        "a Compose file"
    } else if is_playbook(value) {
        "an Ansible playbook"
    } else if name == "Chart.yaml" && has("apiVersion") {
        "a Helm chart"
    } else {
        "YAML that is not a Kubernetes object"
    };
    Foreign {
        place: document.place(""),
        what: what.to_owned(),
        help,
    }
}

fn is_playbook(value: &Value) -> bool {
    let is_play = |play: &Value| {
        ["hosts", "import_playbook"]
            .iter()
            .any(|key| play.get(key).is_some())
    };
    let plays = value.as_array();
    plays.is_some_and(|plays| !plays.is_empty() && plays.iter().all(is_play))
}

/// Returns one finding for all ignored documents of a file.
pub(super) fn ignored(foreign: Vec<Foreign>) -> Option<Finding> {
    let others = foreign.len().saturating_sub(1);
    let first = foreign.into_iter().next()?;
    let what = first.what;
    let message = match others {
        0 => format!("{what} is not part of the fleet"),
        1 => format!("{what} and another document of this file are not part of the fleet"),
        _ => format!("{what} and {others} other documents of this file are not part of the fleet"),
    };
    let finding = Finding::warning(code::IGNORED_FILE, first.place, message);
    Some(match first.help {
        Some(help) => finding.with_help(help),
        None => finding,
    })
}

/// Whether SOPS encrypted the document; it adds this field.
fn is_encrypted(value: &Value) -> bool {
    pointer::find(value, "/sops/mac").is_some_and(Value::is_string)
}

/// Reports an encrypted object.
pub(super) fn encrypted(kind: &str, name: &str, document: &Document) -> Option<Finding> {
    if !is_encrypted(&document.value) {
        return None;
    }
    let message = format!("{kind} `{name}` is encrypted with SOPS: it cannot be read");
    let place = document.key_place("/sops");
    Some(Finding::error(code::ENCRYPTED, place, message))
}

/// Whether a text names our group or one of its kinds. `ConfigMap` does not count: much of other people's YAML names it.
pub(super) fn is_named_in(text: &str) -> bool {
    text.contains(GROUP) || of_our_group().any(|kind| text.contains(kind))
}
