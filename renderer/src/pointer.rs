//! JSON pointers (RFC 6901) into values and documents.

use std::borrow::Cow;

use serde_json::Value;

/// Returns a key as one step of a pointer.
pub fn step(key: &str) -> Cow<'_, str> {
    if key.contains(['~', '/']) {
        Cow::Owned(key.replace('~', "~0").replace('/', "~1"))
    } else {
        Cow::Borrowed(key)
    }
}

/// Returns the key that a step of a pointer names.
pub fn key(step: &str) -> Cow<'_, str> {
    if step.contains('~') {
        Cow::Owned(step.replace("~1", "/").replace("~0", "~"))
    } else {
        Cow::Borrowed(step)
    }
}

/// Returns the value at a pointer. [`Value::pointer`] returns the same, but copies every step: with 100,000 devices, that takes a
/// tenth of the time of a render.
pub fn find<'a>(value: &'a Value, pointer: &str) -> Option<&'a Value> {
    if pointer.is_empty() {
        return Some(value);
    }
    let mut steps = pointer.strip_prefix('/')?.split('/');
    steps.try_fold(value, |value, step| match value {
        Value::Object(map) => map.get(key(step).as_ref()),
        Value::Array(items) => items.get(index(step)?),
        _ => None,
    })
}

/// Returns the index in a list that a step names: `0`, or digits that begin with another one.
fn index(step: &str) -> Option<usize> {
    let is_one = step == "0" || !step.starts_with(['0', '+']);
    is_one.then(|| step.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_step_names_its_key() {
        for name in ["", "a", "a/b", "~", "~1", "/~0", "a~b/c"] {
            assert_eq!(key(&step(name)), name);
        }
    }

    proptest! {
        #[test]
        fn the_value_is_that_of_serde_json(pointer in "/?(([ab0]|00|01|1|\\+1|~0|~1|~|-)/){0,4}([ab01]|~1)?") {
            let list = json!([["x"], {"a": 1, "": 2, "1": [3]}]);
            let value = json!({"a": list, "b": {"/": list, "~": 4, "": 5}, "0": list, "": {"": 6}});
            prop_assert_eq!(find(&value, &pointer), value.pointer(&pointer));
        }
    }
}
