//! `atoll bucket`: create, list, show, alter and drop buckets.
//!
//! Nobody votes on a bucket: whichever node is asked makes the change alone and tells all others it can reach. So each
//! command says on how many nodes its outcome is known; the rest hear of it as soon as they are reached.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use atoll_client::{
    BucketChanged, BucketId, Client, Level, NodeId, Options, Repair, RequestError,
    bucket::{
        Alteration, Creation, Definition, Entry, Kind, Properties, Property, Registry, Unresolved,
    },
};
use clap::{Args, Subcommand, builder::PossibleValuesParser, builder::TypedValueParser};
use serde::Serialize;

use crate::{
    change::confirm,
    exit::{Exit, Failed},
    get::repairs,
    output::{self, Format},
    receipt::{self, Asked},
    request::connect,
};

/// How long a node may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// The commands.
#[derive(Subcommand)]
pub enum BucketCommand {
    /// Make a bucket. Kind and N are fixed for ever; what requests find there can be altered
    #[command(after_help = "\
Examples:
  atoll bucket create carts --kind register
  atoll bucket create clicks --kind counter --n 2
  atoll bucket create sessions --kind lww --ttl 1h -w one      values that go after an hour
  atoll bucket create orders --kind map -w all --strict        every write waits for all owners
  atoll put cart:7 'two apples' --bucket carts

A bucket that is there just as wanted is no mistake. Exits 8 if the name stands for something else.")]
    Create(CreateArgs),
    /// All buckets
    #[command(after_help = "\
Examples:
  atoll bucket list
  atoll bucket list --all              those that were dropped, too
  atoll bucket list -o json

Two that were created under one name by nodes that could not see each other are both there: the smaller id
has the name, the other is reached as NAME@ID.")]
    List {
        /// Show dropped ones too: every node remembers them for ever
        #[arg(long)]
        all: bool,
    },
    /// One bucket, and which nodes know it
    #[command(after_help = "\
Examples:
  atoll bucket show carts
  atoll bucket show carts@5f0c21aa     one of several with that name")]
    Show {
        /// The name, or NAME@ID
        name: String,
    },
    /// Change what requests find in a bucket
    #[command(after_help = "\
Examples:
  atoll bucket alter carts -w all --timeout 2s
  atoll bucket alter carts --unset w --unset timeout      as everywhere again
  atoll bucket alter default --repair blocking

Kind and N cannot be altered: data is stored under them. Create another bucket and copy what you need.")]
    Alter(AlterArgs),
    /// Drop a bucket with all its data, for ever
    #[command(after_help = "\
Examples:
  atoll bucket drop carts
  atoll bucket drop carts@5f0c21aa --yes

Its data goes from every node, also from those that hear of it later. Creating the name again makes a new and
empty bucket.")]
    Drop {
        /// The name, or NAME@ID
        name: String,

        /// Drop without asking
        #[arg(short, long)]
        yes: bool,
    },
}

/// What to create.
#[derive(Args)]
pub struct CreateArgs {
    /// The name: 1 to 128 bytes, without control characters and `@`
    name: String,

    /// What its values are: register, lww, counter, set, flag, max or map
    #[arg(long)]
    kind: Kind,

    /// Copies: so many owners hold each key [default: the cluster's replicas]
    #[arg(short, long)]
    n: Option<u8>,

    #[command(flatten)]
    properties: PropertyFlags,
}

/// What to alter.
#[derive(Args)]
pub struct AlterArgs {
    /// The name, or NAME@ID
    name: String,

    /// Cannot be altered; says why
    #[arg(long, hide = true)]
    kind: Option<Kind>,

    /// Cannot be altered; says why
    #[arg(short, long, hide = true)]
    n: Option<u8>,

    /// Say no longer; may be given several times
    #[arg(long, value_name = "PROPERTY", value_parser = property_names())]
    unset: Vec<Property>,

    #[command(flatten)]
    properties: PropertyFlags,
}

/// What requests find in a bucket that leave it out.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "What requests find there")]
pub struct PropertyFlags {
    /// Answers a read needs: a number, one, two, three, quorum or all
    #[arg(short, value_name = "LEVEL")]
    r: Option<Level>,

    /// Acknowledgements a write needs
    #[arg(short, value_name = "LEVEL")]
    w: Option<Level>,

    /// Of the answers, how many must come from owners
    #[arg(long, value_name = "LEVEL")]
    pr: Option<Level>,

    /// Of the acknowledgements, how many must come from owners
    #[arg(long, value_name = "LEVEL")]
    pw: Option<Level>,

    /// Of the acknowledgements, how many must be on stable storage
    #[arg(long, value_name = "LEVEL")]
    dw: Option<Level>,

    /// Fallbacks may stand in for owners
    #[arg(long, overrides_with = "strict")]
    sloppy: bool,

    /// Only owners count
    #[arg(long)]
    strict: bool,

    /// What happens to owners that are behind a read: async, blocking or none
    #[arg(long, value_name = "MODE", value_parser = repairs())]
    repair: Option<Repair>,

    /// For a whole request
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,

    /// After which a value is shown no more, for register and lww; up to 100 years
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    ttl: Option<Duration>,

    /// Most bytes of one value, up to 1048576
    #[arg(long, value_name = "BYTES")]
    value_bytes_max: Option<u32>,

    /// Most elements of a set or fields of a map, up to 1000
    #[arg(long, value_name = "COUNT")]
    elements_max: Option<u16>,
}

impl PropertyFlags {
    fn properties(&self) -> Properties {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let timeout_ms = self.timeout.map(|time| u32::try_from(ms(time)).unwrap_or(u32::MAX));
        Properties {
            r: self.r,
            w: self.w,
            pr: self.pr,
            pw: self.pw,
            dw: self.dw,
            sloppy: (self.sloppy || self.strict).then_some(self.sloppy),
            repair: self.repair,
            timeout_ms,
            ttl_ms: self.ttl.map(ms),
            value_bytes_max: self.value_bytes_max,
            elements_max: self.elements_max,
        }
    }
}

/// Properties, by their names.
fn property_names() -> impl TypedValueParser<Value = Property> {
    PossibleValuesParser::new(Property::ALL.map(Property::word)).map(|word| {
        let property = Property::ALL.into_iter().find(|property| property.word() == word);
        property.expect("the parser lets no other word through")
    })
}

/// Runs the command.
pub async fn run(
    command: BucketCommand,
    cluster: Option<&str>,
    format: Format,
) -> Result<(), Failed> {
    if let BucketCommand::Alter(args) = &command {
        args.check()?;
    }
    let client = connect(cluster).await?;
    let done = match command {
        BucketCommand::Create(args) => create(&client, args, format).await,
        BucketCommand::List { all } => list(&client, all, format).await,
        BucketCommand::Show { name } => show(&client, &name, format).await,
        BucketCommand::Alter(args) => alter(&client, &args, format).await,
        BucketCommand::Drop { name, yes } => drop_it(&client, &name, yes, format).await,
    };
    client.close().await;
    done
}

fn options() -> Options {
    Options { timeout: Some(ANSWER_LIMIT), ..Options::default() }
}

async fn create(client: &Client, args: CreateArgs, format: Format) -> Result<(), Failed> {
    let properties = args.properties.properties();
    let CreateArgs { name, kind, n, .. } = args;
    let wanted = Creation { name: name.clone(), kind, n, properties };
    let changed = client.create_bucket(wanted, &options()).await.map_err(failure)?;
    let deed = if changed.changed { "created" } else { "was there already" };
    report(client, deed, &name, &changed, format);
    Ok(())
}

impl AlterArgs {
    /// What can be refused without a cluster.
    fn check(&self) -> Result<(), Failed> {
        let fixed = |what: &str| {
            let name = &self.name;
            let what = format!(
                "the {what} of a bucket is fixed when it is created: its data is stored under it"
            );
            Failed::new(Exit::Refused, what)
                .mend(format!("create another bucket and copy what you need from `{name}`"))
        };
        if self.kind.is_some() {
            return Err(fixed("kind"));
        }
        if self.n.is_some() {
            return Err(fixed("N"));
        }
        if self.unset.is_empty() && self.properties.properties() == Properties::default() {
            let what = "nothing to alter";
            return Err(Failed::new(Exit::Refused, what).mend("atoll bucket alter --help"));
        }
        Ok(())
    }
}

async fn alter(client: &Client, args: &AlterArgs, format: Format) -> Result<(), Failed> {
    let (id, _) = find(client, &args.name).await?;
    let alteration = Alteration { set: args.properties.properties(), unset: args.unset.clone() };
    let changed = client.alter_bucket(id, alteration, &options()).await.map_err(failure)?;
    let deed = if changed.changed { "altered" } else { "was like this already" };
    report(client, deed, &args.name, &changed, format);
    Ok(())
}

async fn drop_it(client: &Client, name: &str, yes: bool, format: Format) -> Result<(), Failed> {
    let (id, entry) = find(client, name).await?;
    if !yes {
        let Definition { kind, n, .. } = &entry.definition;
        confirm(&format!("Drop `{name}` ({kind}, N={n}, {}) with all its data?", short(id)))?;
    }
    let changed = client.drop_bucket(id, &options()).await.map_err(failure)?;
    let deed = if changed.changed { "dropped" } else { "was dropped already" };
    report(client, deed, name, &changed, format);
    Ok(())
}

/// The bucket that is meant, as any node knows it now.
async fn find(client: &Client, name: &str) -> Result<(BucketId, Arc<Entry>), Failed> {
    let registry = client.buckets(None, ANSWER_LIMIT).await.map_err(failure)?;
    let (id, entry) = registry.resolve(name).map_err(|unresolved| lost(&unresolved))?;
    Ok((id, entry.clone()))
}

fn lost(unresolved: &Unresolved) -> Failed {
    Failed::new(Exit::Refused, unresolved.to_string())
}

fn failure(error: RequestError) -> Failed {
    receipt::failure(Asked::Read, &error)
}

/// What a change has done.
#[derive(Serialize)]
struct ChangeDocument {
    schema: &'static str,
    name: String,
    id: String,
    changed: bool,
    known_on: Vec<String>,
    missing: Vec<String>,
}

fn report(client: &Client, deed: &str, name: &str, changed: &BucketChanged, format: Format) {
    let names = |nodes: &[u32]| nodes.iter().map(|node| NodeId(*node).to_string()).collect();
    let document = ChangeDocument {
        schema: "atoll.bucket-change/v1",
        name: name.into(),
        id: changed.bucket.to_string(),
        changed: changed.changed,
        known_on: names(&changed.known),
        missing: names(&changed.missing),
    };
    match format {
        Format::Json => output::json(&document),
        Format::Plain => {
            let (known, missing) = (document.known_on.join(","), document.missing.join(","));
            anstream::println!("{}\t{known}\t{missing}", document.id);
        }
        Format::Table => {
            let members = client.view().members().len();
            let known = document.known_on.len();
            anstream::println!(
                "{deed}: `{name}` ({}), known on {known} of {members} nodes",
                short(changed.bucket)
            );
            if !document.missing.is_empty() {
                anstream::println!(
                    "{} cannot be reached now and will hear of it from the others",
                    document.missing.join(", ")
                );
            }
        }
    }
}

/// A bucket in JSON.
#[derive(Serialize)]
struct Document {
    name: String,
    id: String,
    /// What to write for it.
    reach: String,
    kind: String,
    n: u8,
    generation: u32,
    dropped: bool,
    /// Others with the same name.
    conflict: bool,
    version: u64,
    properties: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
struct ListDocument {
    schema: &'static str,
    buckets: Vec<Document>,
}

#[derive(Serialize)]
struct ShowDocument {
    schema: &'static str,
    #[serde(flatten)]
    bucket: Document,
    /// The others that have its name.
    others: Vec<String>,
    /// Per node: knows, older, unknown, or why it did not answer.
    nodes: BTreeMap<String, String>,
}

fn document(registry: &Registry, id: BucketId, entry: &Entry) -> Document {
    let Definition { name, kind, n, generation, properties } = &entry.definition;
    let living = registry.living(name.as_str());
    let has_name = living.first().is_some_and(|(first, _)| *first == id);
    let reach = if has_name { name.to_string() } else { format!("{name}@{}", short(id)) };
    Document {
        name: name.to_string(),
        id: id.to_string(),
        reach,
        kind: kind.to_string(),
        n: *n,
        generation: *generation,
        dropped: entry.dropped,
        conflict: !entry.dropped && living.len() > 1,
        version: entry.version.number,
        properties: said(properties),
    }
}

/// What a bucket says, by name, in the words in which it is asked for.
fn said(properties: &Properties) -> BTreeMap<&'static str, String> {
    let Properties {
        r,
        w,
        pr,
        pw,
        dw,
        sloppy,
        repair,
        timeout_ms,
        ttl_ms,
        value_bytes_max,
        elements_max,
    } = properties;
    let duration = |ms: u64| humantime::format_duration(Duration::from_millis(ms)).to_string();
    let all = [
        (Property::R, r.map(|level| level.to_string())),
        (Property::W, w.map(|level| level.to_string())),
        (Property::Pr, pr.map(|level| level.to_string())),
        (Property::Pw, pw.map(|level| level.to_string())),
        (Property::Dw, dw.map(|level| level.to_string())),
        (Property::Sloppy, sloppy.map(|sloppy| sloppy.to_string())),
        (Property::Repair, repair.map(|repair| repair.word().to_owned())),
        (Property::Timeout, timeout_ms.map(|ms| duration(ms.into()))),
        (Property::Ttl, ttl_ms.map(duration)),
        (Property::ValueBytesMax, value_bytes_max.map(|bytes| bytes.to_string())),
        (Property::ElementsMax, elements_max.map(|elements| elements.to_string())),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name.word(), value?))).collect()
}

fn said_in_words(properties: &BTreeMap<&'static str, String>) -> String {
    let words: Vec<String> =
        properties.iter().map(|(name, value)| format!("{name}={value}")).collect();
    words.join(" ")
}

/// Enough of an id to name it.
fn short(id: BucketId) -> String {
    id.to_string()[..8].to_owned()
}

async fn list(client: &Client, all: bool, format: Format) -> Result<(), Failed> {
    let registry = client.buckets(None, ANSWER_LIMIT).await.map_err(failure)?;
    let shown = registry.entries().filter(|(_, entry)| all || !entry.dropped);
    let mut buckets: Vec<Document> =
        shown.map(|(id, entry)| document(&registry, id, entry)).collect();
    buckets.sort_by(|a, b| (&a.name, a.dropped, &a.reach).cmp(&(&b.name, b.dropped, &b.reach)));
    if format == Format::Json {
        output::json(&ListDocument { schema: "atoll.buckets/v1", buckets });
        return Ok(());
    }
    let state = |bucket: &Document| match (bucket.dropped, bucket.conflict) {
        (true, _) => "dropped",
        (false, true) => "conflict",
        (false, false) => "",
    };
    let row = |bucket: &Document| {
        vec![
            bucket.reach.clone(),
            bucket.id.clone(),
            bucket.kind.clone(),
            bucket.n.to_string(),
            said_in_words(&bucket.properties),
            state(bucket).to_owned(),
        ]
    };
    let rows: Vec<Vec<String>> = buckets.iter().map(row).collect();
    output::rows(format, &["NAME", "ID", "KIND", "N", "SAYS", ""], &rows);
    if buckets.iter().any(|bucket| bucket.conflict) && format == Format::Table {
        anstream::println!(
            "\nA name in conflict stands for several buckets, created by nodes that could not see each other: the smallest \
             id has the name, the others are reached as NAME@ID. `atoll bucket drop` ends one of them."
        );
    }
    Ok(())
}

async fn show(client: &Client, name: &str, format: Format) -> Result<(), Failed> {
    let registry = client.buckets(None, ANSWER_LIMIT).await.map_err(failure)?;
    let (id, entry) = registry.resolve(name).map_err(|unresolved| lost(&unresolved))?;
    let bucket = document(&registry, id, entry);
    let others = registry.living(&bucket.name).into_iter().filter(|(other, _)| *other != id);
    let others: Vec<String> =
        others.map(|(other, entry)| document(&registry, other, entry).reach).collect();
    let mut nodes = BTreeMap::new();
    for member in client.view().members() {
        let says = match client.buckets_of(member.id, ANSWER_LIMIT / 5).await {
            Ok(theirs) => match theirs.entry(id) {
                Some(known) if known.version == entry.version && !known.dropped => "knows".into(),
                Some(known) if known.dropped => "dropped".into(),
                Some(_) => "other version".into(),
                None => "unknown".into(),
            },
            Err(error) => error.to_string(),
        };
        nodes.insert(member.id.to_string(), says);
    }
    let document = ShowDocument { schema: "atoll.bucket/v1", bucket, others, nodes };
    match format {
        Format::Json => output::json(&document),
        Format::Plain => {
            let bucket = &document.bucket;
            let words = said_in_words(&bucket.properties);
            anstream::println!("{}\t{}\t{}\t{words}", bucket.id, bucket.kind, bucket.n);
        }
        Format::Table => shown(&document),
    }
    Ok(())
}

fn shown(document: &ShowDocument) {
    let ShowDocument { bucket, others, nodes, .. } = document;
    anstream::println!("name        {}", bucket.reach);
    anstream::println!("id          {}", bucket.id);
    anstream::println!("kind        {}", bucket.kind);
    anstream::println!("N           {} (the first owners of each partition)", bucket.n);
    anstream::println!("generation  {}", bucket.generation);
    let says = match bucket.properties.is_empty() {
        true => "nothing: requests are as everywhere".into(),
        false => said_in_words(&bucket.properties),
    };
    anstream::println!("says        {says}");
    let knowing = nodes.values().filter(|says| *says == "knows").count();
    anstream::println!("known on    {knowing} of {} nodes", nodes.len());
    for (node, says) in nodes.iter().filter(|(_, says)| *says != "knows") {
        anstream::println!("            {node}: {says}");
    }
    if !others.is_empty() {
        anstream::println!("conflict    the same name: {}", others.join(", "));
    }
}
