//! The way to a value in a JSON document: `receipt.replicas.stands_in_for=n3.node`.
//!
//! Names and indices from 0, with dots between them. `name=text` is the element of a list whose field has that text, `*` all
//! elements of a list.

use serde_json::Value;

/// A way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// As it was written; names of values may be in it.
    pub text: String,
}

impl Path {
    /// All that it leads to in a document, once its values are filled in.
    #[must_use]
    pub fn find<'a>(filled: &str, document: &'a Value) -> Vec<&'a Value> {
        let mut found = vec![document];
        for step in filled.split('.') {
            found = found.into_iter().flat_map(|value| below(value, step)).collect();
        }
        found
    }
}

fn below<'a>(value: &'a Value, step: &str) -> Vec<&'a Value> {
    match (value, step) {
        (Value::Array(all), "*") => all.iter().collect(),
        (Value::Array(all), step) => match step.split_once('=') {
            Some((field, text)) => {
                let is = |one: &&Value| one.get(field).is_some_and(|found| plain(found) == text);
                all.iter().filter(is).collect()
            }
            None => step.parse().ok().and_then(|index: usize| all.get(index)).into_iter().collect(),
        },
        (Value::Object(fields), name) => fields.get(name).into_iter().collect(),
        _ => Vec::new(),
    }
}

/// A value as a word of a command line.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ways() {
        let document = json!({
            "owners": ["n3", "n2"],
            "nodes": [{"node": "n1", "hints": 0}, {"node": "n2", "hints": 3}, {"node": "n3"}],
        });
        let find = |way: &str| {
            Path::find(way, &document).into_iter().map(plain).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(find("owners.1"), "n2");
        assert_eq!(find("nodes.node=n2.hints"), "3");
        assert_eq!(find("nodes.*.hints"), "0 3");
        for nowhere in ["owners.2", "owners.x", "nodes.node=n9.hints", "nothing", "owners.0.x", ""]
        {
            assert_eq!(find(nowhere), "", "{nowhere}");
        }
    }
}
