//! Selects the devices of sets and workloads.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// The labels of an object.
pub type Labels = BTreeMap<String, String>;

/// The label by which a device names its set (Project Flotta's).
pub const MEMBER_OF: &str = "flotta/member-of";

/// Whether a selector matches labels, as in Kubernetes: all of `matchLabels` and all of `matchExpressions` must match, and an
/// empty selector matches everything. An unknown operator matches nothing (it is refused before).
pub fn matches(selector: &LabelSelector, labels: &Labels) -> bool {
    let all_labels = selector
        .match_labels
        .iter()
        .flatten()
        .all(|(key, value)| labels.get(key) == Some(value));
    let all_expressions = selector
        .match_expressions
        .iter()
        .flatten()
        .all(|expression| {
            let value = labels.get(&expression.key);
            let values = expression.values.as_deref().unwrap_or_default();
            match expression.operator.as_str() {
                "In" => value.is_some_and(|value| values.contains(value)),
                "NotIn" => value.is_none_or(|value| !values.contains(value)),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        });
    all_labels && all_expressions
}

/// An index of devices by namespace and label, so that a selector is compared only with devices that can match.
#[derive(Debug, Default)]
pub struct ByLabel<'a> {
    labels: Vec<&'a Labels>,
    namespaces: HashMap<&'a str, Vec<usize>>,
    pairs: HashMap<(&'a str, &'a str, &'a str), Vec<usize>>,
}

impl<'a> ByLabel<'a> {
    /// Returns an index of devices, each given as namespace and labels, and identified by its position in `devices`.
    pub fn new(devices: impl Iterator<Item = (&'a str, &'a Labels)>) -> Self {
        let mut index = Self::default();
        for (at, (namespace, labels)) in devices.enumerate() {
            index.labels.push(labels);
            index.namespaces.entry(namespace).or_default().push(at);
            for (key, value) in labels {
                let pair = (namespace, key.as_str(), value.as_str());
                index.pairs.entry(pair).or_default().push(at);
            }
        }
        index
    }

    /// Returns the positions of the devices of a namespace that match (see [`matches`]), in order.
    pub fn select(&self, namespace: &str, selector: &LabelSelector) -> Vec<usize> {
        let pairs = selector.match_labels.iter().flatten();
        let fewest = pairs
            .map(|(key, value)| self.pairs.get(&(namespace, key.as_str(), value.as_str())))
            .map(|devices| devices.map_or(&[][..], Vec::as_slice))
            .min_by_key(|devices| devices.len());
        let all = || {
            self.namespaces
                .get(namespace)
                .map_or(&[][..], Vec::as_slice)
        };
        let can = fewest.unwrap_or_else(all);
        let one_label = selector.match_labels.iter().flatten().count() == 1;
        if one_label && selector.match_expressions.is_none() {
            return can.to_vec();
        }
        let can = can.iter().copied();
        can.filter(|at| matches(selector, self.labels[*at]))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(yaml: serde_json::Value) -> LabelSelector {
        serde_json::from_value(yaml).expect("a selector")
    }

    #[test]
    fn selectors_mean_what_kubernetes_means() {
        let labels: Labels = [("site", "north"), ("topology.kubernetes.io/zone", "a")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into();
        let expression = |key, operator, values: &[&str]| {
            selector(
                serde_json::json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]}),
            )
        };
        let cases = [
            (selector(serde_json::json!({})), true),
            (
                selector(serde_json::json!({"matchLabels": {"site": "north"}})),
                true,
            ),
            (
                selector(serde_json::json!({"matchLabels": {"topology.kubernetes.io/zone": "a"}})),
                true,
            ),
            (
                selector(serde_json::json!({"matchLabels": {"site": "north", "x": "y"}})),
                false,
            ),
            (expression("site", "In", &["south", "north"]), true),
            (expression("site", "NotIn", &["north"]), false),
            (expression("gone", "NotIn", &["north"]), true),
            (expression("gone", "In", &["north"]), false),
            (expression("site", "Exists", &[]), true),
            (expression("site", "DoesNotExist", &[]), false),
            (expression("site", "Unheard", &[]), false),
        ];
        let others = Labels::new();
        let fleet = [("here", &others), ("here", &labels), ("there", &labels)];
        let index = ByLabel::new(fleet.into_iter());
        for (n, (selector, expected)) in cases.iter().enumerate() {
            assert_eq!(matches(selector, &labels), *expected, "case {n}");
            let found = index.select("here", selector);
            assert_eq!(found.contains(&1), *expected, "case {n}");
            assert_eq!(found.contains(&0), matches(selector, &others), "case {n}");
            assert!(!found.contains(&2), "case {n}");
        }
    }
}
