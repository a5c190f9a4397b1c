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
    /// Objects, of this kind where they do not say it themselves.
    List(Option<String>),
    /// It is not part of the fleet.
    Foreign(Foreign),
    /// It was meant to be an object of ours.
    Wrong(Box<Finding>),
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
            let message = format!("not an object of Kubernetes' shape: `{missing}` is missing");
            let place = document.key_place(given);
            Is::Wrong(Box::new(Finding::error(
                code::UNSUPPORTED_KIND,
                place,
                message,
            )))
        }
        _ => Is::Foreign(of_no_kind(document)),
    }
}

/// Whether a document that does not say both what it is was meant to be an object: it names something of ours, or looks like it.
fn is_meant(version: Option<&str>, kind: Option<&str>, value: &Value) -> bool {
    let is_ours = |version: &str| version.starts_with(GROUP);
    let named = pointer::find(value, "/metadata/name").is_some_and(Value::is_string);
    let body = ["spec", "data"].iter().any(|key| value.get(key).is_some());
    version.is_some_and(is_ours) || kind.is_some_and(|kind| alike(kind).is_some()) || named && body
}

fn of_kind(version: &str, kind: &str, document: &Document) -> Is {
    if let Some(kind) = schema::known(kind)
        && version == schema::version_of(kind)
    {
        return Is::Ours(kind);
    }
    if version == "v1" && kind == "List" {
        return Is::List(None);
    }
    // An API server answers with such lists.
    if let Some(of) = kind.strip_suffix("List")
        && schema::known(of).is_some()
        && version == schema::version_of(of)
    {
        return Is::List(Some(of.to_owned()));
    }
    let place = document.place("/apiVersion");
    let wrong = |message| Finding::error(code::UNSUPPORTED_KIND, place.clone(), message);
    if let Some(known) = alike(kind) {
        let message = format!("`{version}` `{kind}` is not a kind of Flotta's");
        let expected = schema::version_of(known);
        let help = format!("did you mean `apiVersion: {expected}`, `kind: {known}`?");
        return Is::Wrong(Box::new(wrong(message).with_help(help)));
    }
    if version.starts_with(GROUP) {
        let message = format!("`{version}` has no kind `{kind}` that this version knows");
        return Is::Wrong(Box::new(wrong(message)));
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

/// Returns the kind with a similar name.
fn alike(kind: &str) -> Option<&'static str> {
    let is_alike =
        |known: &&str| known.eq_ignore_ascii_case(kind) || strsim::jaro_winkler(known, kind) > 0.95;
    schema::kinds().find(is_alike)
}

const KUSTOMIZATION: &str = "it is not applied: if it changes the objects next to it, commit what `kustomize build` writes instead of them";

/// YAML that is no object, by what people call it.
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
        "YAML that is no object of Kubernetes' shape"
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

/// Reports an encrypted object: an error, unless it is a `ConfigMap`, which may not belong to the fleet.
pub(super) fn encrypted(kind: &str, name: &str, document: &Document) -> Option<Box<Finding>> {
    if !is_encrypted(&document.value) {
        return None;
    }
    let message = format!("{kind} `{name}` is encrypted with SOPS: it cannot be read");
    let place = document.key_place("/sops");
    let finding = Finding::error(code::ENCRYPTED, place, message);
    Some(Box::new(if kind == "ConfigMap" {
        finding.as_warning()
    } else {
        finding
    }))
}

/// Whether a text names our group or one of our kinds.
pub(super) fn is_named_in(text: &str) -> bool {
    text.contains(GROUP) || schema::kinds().any(|kind| text.contains(kind))
}
