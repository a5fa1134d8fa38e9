//! What a traced request did, node by node: `--trace`.
//!
//! Each node has noted its steps by its own clock, in microseconds since the request came to it. Clocks of two nodes are not
//! compared: the way between two nodes is what is missing between `sent to` and `answered by`.

use atoll_client::{NodeId, Step, Trace};
use serde::Serialize;

use crate::receipt::names;

/// A trace in JSON.
#[derive(Serialize)]
pub struct Document {
    steps: Vec<StepDocument>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    untraced: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    left_out: u16,
}

#[derive(Serialize)]
struct StepDocument {
    node: String,
    micros: u32,
    /// Never changes its meaning; the words may.
    number: u8,
    step: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks like this")]
fn is_zero(number: &u16) -> bool {
    *number == 0
}

/// The JSON of a trace.
pub fn document(trace: &Trace) -> Document {
    let name = |node: u32| NodeId(node).to_string();
    let step = |step: &Step| StepDocument {
        node: name(step.node),
        micros: step.micros,
        number: step.deed.number(),
        step: step.deed.words(),
        peer: step.peer.map(name),
    };
    Document {
        steps: trace.steps.iter().map(step).collect(),
        untraced: trace.untraced.iter().map(|node| name(*node)).collect(),
        left_out: trace.left_out,
    }
}

/// A time line per node, in the order in which they come.
pub fn lines(trace: &Trace) -> Vec<String> {
    let mut nodes: Vec<u32> = Vec::new();
    for step in &trace.steps {
        if !nodes.contains(&step.node) {
            nodes.push(step.node);
        }
    }
    let mut lines = Vec::new();
    if !nodes.is_empty() {
        lines.push(
            "steps in microseconds, by each node's own clock since the request came to it".into(),
        );
    }
    for node in nodes {
        let mut name = NodeId(node).to_string();
        for step in trace.steps.iter().filter(|step| step.node == node) {
            lines.push(format!("  {name:<5} {:>9}  {step}", step.micros));
            name.clear();
        }
    }
    if !trace.untraced.is_empty() {
        let names = names(&trace.untraced);
        lines.push(format!("not traced at {names}: as many others are traced there as may be"));
    }
    if trace.left_out > 0 {
        lines.push(format!("{} further steps are left out", trace.left_out));
    }
    lines
}

#[cfg(test)]
mod tests {
    use atoll_client::Deed;

    use super::*;

    /// Steps that came mixed stand together per node; what is missing is said.
    #[test]
    fn a_time_line_per_node() {
        let step = |node, micros, deed, peer| Step { node, micros, deed, peer };
        let trace = Trace {
            steps: vec![
                step(1, 0, Deed::Arrived, None),
                step(1, 120, Deed::Sent, Some(12)),
                step(12, 0, Deed::Arrived, None),
                step(12, 1900, Deed::Fsynced, None),
                step(1, 2210, Deed::Answered, Some(12)),
            ],
            untraced: vec![3],
            left_out: 4,
        };
        assert_eq!(
            lines(&trace),
            [
                "steps in microseconds, by each node's own clock since the request came to it",
                "  n1            0  arrived",
                "              120  sent to n12",
                "             2210  answered by n12",
                "  n12           0  arrived",
                "             1900  fsynced",
                "not traced at n3: as many others are traced there as may be",
                "4 further steps are left out",
            ]
        );
        let json = serde_json::to_value(document(&trace)).expect("plain data");
        assert_eq!(json["steps"][1]["peer"], "n12");
        assert_eq!(json["steps"][1]["number"], 11);
        assert_eq!(json["left_out"], 4);
    }
}
