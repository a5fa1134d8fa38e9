//! `atoll ring plan` and `atoll ring commit`: a change in two steps, with a file in between that people can read, keep and
//! pass on.

use std::{
    io::IsTerminal as _,
    path::{Path, PathBuf},
};

use atoll_ring::{ClusterId, Plan, Rejected};
use atoll_transport::small_file::{self, VIEW_BYTES_MAX};
use clap::{Args, ValueHint};
use serde::{Deserialize, Serialize};

use crate::{
    change::{
        self, Commit, Stale, check_dead,
        plan::{self as shown, Cost, Shown},
        rejected, statuses,
        wish::WishArg,
    },
    exit::{Exit, Failed},
    output::{self, Format},
};

/// What would be changed.
#[derive(Args)]
#[command(after_help = "\
Examples:
  atoll ring plan leave n2
  atoll ring plan join n4 > join.plan         the plan in the file, what it means on the terminal
  atoll ring commit join.plan

Where the standard output is no terminal, or with -o json, the plan itself is written there. It fits the ring as it
is now: whatever is committed in between makes it void.")]
pub struct PlanArgs {
    #[command(subcommand)]
    wish: WishArg,
}

/// Which plan.
#[derive(Args)]
#[command(after_help = "\
Example:
  atoll ring commit join.plan --yes --wait")]
pub struct CommitArgs {
    /// The file that `atoll ring plan` wrote
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: PathBuf,

    #[command(flatten)]
    commit: Commit,
}

/// A plan as it is written.
#[derive(Serialize, Deserialize)]
struct Document<S> {
    schema: String,
    cluster: ClusterId,
    /// For people; what is committed is the plan.
    means: S,
    plan: Plan,
}

const SCHEMA: &str = "atoll.ring-plan/v1";

/// Shows a plan.
pub async fn run(args: &PlanArgs, cluster: Option<&str>, format: Format) -> Result<(), Failed> {
    let wish = args.wish.wish()?;
    let client = change::connect(cluster).await?;
    let view = client.view();
    let plan = Plan::of(&view, &wish).map_err(|why| rejected(&why))?;
    let statuses = statuses(&client, &view).await;
    client.close().await;
    check_dead(&wish, &statuses)?;
    let cost = Cost::of(&view, &plan, &statuses);
    if format == Format::Table && std::io::stdout().is_terminal() {
        shown::print(&view, &plan, &cost, &statuses);
        return Ok(());
    }
    if format != Format::Json {
        shown::print_beside(&view, &plan, &cost, &statuses);
    }
    output::json(&Document {
        schema: SCHEMA.into(),
        cluster: view.cluster(),
        means: Shown::of(&plan, &cost),
        plan,
    });
    Ok(())
}

/// Commits a plan that was written before.
pub async fn commit(args: CommitArgs, cluster: Option<&str>, format: Format) -> Result<(), Failed> {
    let document = read(&args.file)?;
    let client = change::connect(cluster).await?;
    let view = client.view();
    let done = match check(&document, view.cluster(), view.epoch()) {
        Ok(()) => {
            let plan = &document.plan;
            change::show_and_commit(&client, &view, plan, Stale::Refuse, args.commit, format).await
        }
        Err(error) => Err(error),
    };
    client.close().await;
    done
}

/// Whether a plan was made for this cluster as it is.
fn check(
    document: &Document<serde::de::IgnoredAny>,
    cluster: ClusterId,
    now: atoll_ring::Epoch,
) -> Result<(), Failed> {
    if document.cluster != cluster {
        let what = format!(
            "this plan was made for cluster {}, and this is {cluster}\n  nothing was changed",
            document.cluster
        );
        return Err(
            Failed::new(Exit::Refused, what).mend("another --cluster, or a plan for this one")
        );
    }
    if document.plan.base != now {
        return Err(rejected(&Rejected::OtherEpoch { made_for: document.plan.base, now }));
    }
    Ok(())
}

fn read(path: &Path) -> Result<Document<serde::de::IgnoredAny>, Failed> {
    let refused = |why: String| {
        Failed::new(Exit::Refused, format!("{}: {why}", path.display()))
            .mend("atoll ring plan … > FILE makes one")
    };
    let text = small_file::read_text(path, VIEW_BYTES_MAX)
        .map_err(|error| refused(format!("cannot be read: {error}")))?;
    let document: Document<serde::de::IgnoredAny> = serde_json::from_str(&text)
        .map_err(|error| refused(format!("is no plan: {}", small_file::in_short(error))))?;
    if document.schema != SCHEMA {
        return Err(refused(format!("is {}, and this program reads {SCHEMA}", document.schema)));
    }
    Ok(document)
}

#[cfg(test)]
mod tests {
    use atoll_ring::{Epoch, Member, MemberState, NodeId, Partitions, View, Wish};

    use super::*;

    fn plan() -> (ClusterId, Plan) {
        let members = (1..=4).map(|id: u16| Member {
            id: NodeId(id.into()),
            incarnation: 0,
            address: ([127, 0, 0, 1], 7400 + id).into(),
            zone: "z1".into(),
            weight: 1,
            state: MemberState::Active,
        });
        let cluster = ClusterId([7; 16]);
        let partitions = Partitions::new(64).unwrap();
        let (view, _) = View::create(cluster, partitions, 3, members.collect()).unwrap();
        (cluster, Plan::of(&view, &Wish::Leave { node: NodeId(2) }).unwrap())
    }

    /// A plan reads back from its file as itself. Of another cluster, or of another epoch, it is refused with the number
    /// for that and what to type.
    #[test]
    fn from_the_file_and_stale() {
        let (cluster, plan) = plan();
        assert!(!plan.moves.is_empty());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("leave.plan");
        let means = Shown::of(&plan, &Cost::default());
        let document = Document { schema: SCHEMA.into(), cluster, means, plan: plan.clone() };
        std::fs::write(&path, serde_json::to_string_pretty(&document).unwrap()).unwrap();
        let document = read(&path).unwrap();
        assert_eq!(document.plan, plan);
        check(&document, cluster, Epoch(1)).unwrap();
        for (cluster, now, word) in
            [(cluster, Epoch(2), "made for epoch 1"), (ClusterId([8; 16]), Epoch(1), "0808")]
        {
            let failed = check(&document, cluster, now).unwrap_err();
            assert_eq!(failed.exit, Exit::Refused);
            assert!(failed.what.contains(word) && failed.what.contains("nothing was changed"));
            assert!(failed.mend.is_some());
        }
        for text in ["", "{}", "not JSON"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(read(&path).err().unwrap().exit, Exit::Refused);
        }
    }
}
