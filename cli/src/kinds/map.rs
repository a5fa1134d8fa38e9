//! `atoll map`: several fields of one map in one change.
//!
//! ```text
//!   PATH OP VALUE     visits:counter+=5     tags:set+=sea     name:register=Ann     home:map/city:lww=Kiel
//!   PATH              name:kind, and for a field in a map in a map their paths with / between
//!   OP                += and -= for counters (a number) and sets (an element), = for the rest
//! ```

use atoll_client::{Field, FieldChange, Increment, Kind, Operation};
use clap::{Args, Subcommand};

use super::KeyArgs;
use crate::{
    caller::Caller,
    exit::{Exit, Failed},
    output::Format,
    put,
    request::Choices,
};

/// What can be done with a map.
#[derive(Subcommand)]
#[command(after_help = "\
Examples:
  atoll bucket create profiles --kind map
  atoll map update ann visits:counter+=5 tags:set+=sea name:register=Ann dark:flag=on --bucket profiles
  atoll map update ann home:map/city:lww=Kiel --bucket profiles
  atoll map update ann --remove tags:set --bucket profiles
  atoll map get ann --bucket profiles")]
pub enum MapCommand {
    /// Change fields, all in one step
    Update(UpdateArgs),
    /// Read all fields
    Get(KeyArgs),
}

/// Which fields, and how.
#[derive(Args)]
pub struct UpdateArgs {
    /// The key
    key: String,

    /// Changes, such as visits:counter+=5, tags:set-=sea, name:register=Ann, dark:flag=on, best:max=7
    #[arg(value_parser = parse_change, required_unless_present = "remove")]
    changes: Vec<Change>,

    /// A field that shall go, as far as it is seen; may be given several times
    #[arg(long, value_name = "PATH", value_parser = parse_path)]
    remove: Vec<Path>,

    #[command(flatten)]
    choices: Choices,
}

/// One change of one field.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    path: Path,
    operation: Operation,
}

/// A field, and the fields that it lies in, the outermost first.
#[derive(Clone, Debug, PartialEq)]
pub struct Path(Vec<Field>);

/// Runs `atoll map`.
pub async fn run(command: MapCommand, cluster: Option<&str>, format: Format) -> Result<(), Failed> {
    let args = match command {
        MapCommand::Update(args) => args,
        MapCommand::Get(args) => return super::read(args, Kind::Map, cluster, format).await,
    };
    let operation =
        operation(args.changes, args.remove).map_err(|what| Failed::new(Exit::Refused, what))?;
    let caller = Caller::connect(&args.choices, cluster).await?;
    let changed = caller.change(&args.key, &operation, None).await;
    caller.close().await;
    put::show("atoll.change/v1", "updated", &args.key, &changed?, &caller.telling(format));
    Ok(())
}

/// All changes as one.
fn operation(changes: Vec<Change>, remove: Vec<Path>) -> Result<Operation, String> {
    let mut root = Vec::new();
    for Change { path, operation } in changes {
        insert(&mut root, &path.0, FieldChange::Change(operation))?;
    }
    for path in remove {
        insert(&mut root, &path.0, FieldChange::Remove)?;
    }
    Ok(Operation::Update(root))
}

fn insert(
    into: &mut Vec<(Field, FieldChange)>,
    path: &[Field],
    change: FieldChange,
) -> Result<(), String> {
    let [field, rest @ ..] = path else { return Err("a field has a name".into()) };
    let at = into.iter().position(|(own, _)| own == field);
    let twice = || {
        let name = String::from_utf8_lossy(&field.name);
        format!("`{name}:{}` is changed twice in a way that cannot be one change", field.kind)
    };
    if rest.is_empty() {
        return match (at.map(|at| &mut into[at].1), change) {
            (None, change) => {
                into.push((field.clone(), change));
                Ok(())
            }
            // several elements, or steps, of one field
            (
                Some(FieldChange::Change(Operation::Add(all))),
                FieldChange::Change(Operation::Add(more)),
            )
            | (
                Some(FieldChange::Change(Operation::Remove(all))),
                FieldChange::Change(Operation::Remove(more)),
            ) => {
                all.extend(more);
                Ok(())
            }
            (
                Some(FieldChange::Change(Operation::Increment(Increment::Once(all)))),
                FieldChange::Change(Operation::Increment(Increment::Once(more))),
            ) => {
                *all = all.checked_add(more).ok_or_else(twice)?;
                Ok(())
            }
            (Some(_), _) => Err(twice()),
        };
    }
    let at = at.unwrap_or_else(|| {
        into.push((field.clone(), FieldChange::Change(Operation::Update(Vec::new()))));
        into.len() - 1
    });
    match &mut into[at].1 {
        FieldChange::Change(Operation::Update(inner)) => insert(inner, rest, change),
        FieldChange::Change(_) | FieldChange::Remove => Err(twice()),
    }
}

fn parse_path(text: &str) -> Result<Path, String> {
    let (path, rest) = path(text)?;
    match rest {
        "" => Ok(path),
        rest => {
            Err(format!("`{rest}` behind the path; a path is name:kind, or name:map/name:kind"))
        }
    }
}

fn parse_change(text: &str) -> Result<Change, String> {
    let (path, rest) = path(text)?;
    let kind = path.0.last().expect("a path has a field").kind;
    let operation = match (split(rest), kind) {
        (Some(("+=", value)), Kind::Counter) => increment(number(value)?),
        (Some(("-=", value)), Kind::Counter) => {
            increment(number(value)?.checked_neg().ok_or("the number is beyond 64 bits")?)
        }
        (Some(("+=", element)), Kind::Set) => Operation::Add(vec![element.to_owned().into()]),
        (Some(("-=", element)), Kind::Set) => Operation::Remove(vec![element.to_owned().into()]),
        (Some(("=", value)), Kind::Register | Kind::Lww) => {
            Operation::Put { value: value.to_owned().into(), expires_ms: None }
        }
        (Some(("=", "on")), Kind::Flag) => Operation::Enable,
        (Some(("=", "off")), Kind::Flag) => Operation::Disable,
        (Some(("=", value)), Kind::Max) => Operation::Raise(number(value)?),
        (_, kind) => return Err(format!("a field of the kind `{kind}` is changed {}", how(kind))),
    };
    Ok(Change { path, operation })
}

fn how(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "with += and -= and a number",
        Kind::Set => "with += and -= and an element",
        Kind::Register | Kind::Lww => "with = and a value",
        Kind::Flag => "with =on and =off",
        Kind::Max => "with = and a number",
        Kind::Map => "by its fields: name:map/field:kind=value",
    }
}

fn increment(by: i64) -> Operation {
    Operation::Increment(Increment::Once(by))
}

fn number(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| format!("`{text}` is no whole number of 64 bits"))
}

fn split(rest: &str) -> Option<(&'static str, &str)> {
    ["+=", "-=", "="].into_iter().find_map(|op| Some((op, rest.strip_prefix(op)?)))
}

/// Takes a path off the front.
fn path(text: &str) -> Result<(Path, &str), String> {
    let (mut fields, mut rest) = (Vec::new(), text);
    loop {
        let (name, behind) = rest.split_once(':').ok_or_else(|| {
            format!("`{rest}` names no kind; a field is name:kind, such as visits:counter")
        })?;
        let end = behind.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(behind.len());
        let (word, behind) = behind.split_at(end);
        let kind: Kind = word.parse().map_err(|_| {
            let kinds = Kind::ALL.map(Kind::word).join(", ");
            format!("`{word}` is no kind of value; there are {kinds}")
        })?;
        if name.is_empty() {
            return Err("a field has a name".into());
        }
        fields.push(Field { name: name.to_owned().into(), kind });
        match behind.strip_prefix('/') {
            Some(inner) if kind == Kind::Map => rest = inner,
            Some(_) => return Err(format!("`{name}:{kind}` has no fields; only a map has")),
            None => return Ok((Path(fields), behind)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &str, kind: Kind) -> Field {
        Field { name: name.to_owned().into(), kind }
    }

    /// Each kind's own ways, and what is refused with which words.
    #[test]
    fn changes_are_read() {
        let check = |text: &str, name: &str, kind: Kind, operation: Operation| {
            let expected = Change { path: Path(vec![field(name, kind)]), operation };
            assert_eq!(parse_change(text), Ok(expected), "{text}");
        };
        check("visits:counter+=5", "visits", Kind::Counter, increment(5));
        check("visits:counter-=5", "visits", Kind::Counter, increment(-5));
        check("tags:set+=a=b", "tags", Kind::Set, Operation::Add(vec!["a=b".into()]));
        check("tags:set-=", "tags", Kind::Set, Operation::Remove(vec!["".into()]));
        check("dark:flag=on", "dark", Kind::Flag, Operation::Enable);
        check("best:max=-7", "best", Kind::Max, Operation::Raise(-7));
        let put = Operation::Put { value: "Ann:register".into(), expires_ms: None };
        check("name:register=Ann:register", "name", Kind::Register, put);

        let refuse = |text: &str, why: &str| {
            let error = parse_change(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        };
        refuse("visits", "names no kind");
        refuse("visits:counters+=5", "no kind of value");
        refuse("visits:counter=5", "with += and -= and a number");
        refuse("visits:counter+=many", "no whole number");
        refuse("visits:counter-=-9223372036854775808", "beyond 64 bits");
        refuse("dark:flag=maybe", "=on and =off");
        refuse("home:map=x", "by its fields");
        refuse("tags:set/x:flag=on", "has no fields");
        refuse(":set+=x", "has a name");
    }

    /// Changes of one map become one, nested as their paths are.
    #[test]
    fn changes_become_one() {
        let read = |texts: &[&str]| texts.iter().map(|text| parse_change(text).unwrap()).collect();
        let changes =
            read(&["home:map/city:lww=Kiel", "a:set+=x", "a:set+=y", "home:map/zip:max=24103"]);
        let Ok(Operation::Update(all)) =
            operation(changes, vec![parse_path("old:register").unwrap()])
        else {
            panic!("these are one change")
        };
        let names: Vec<&Field> = all.iter().map(|(field, _)| field).collect();
        let expected =
            [field("home", Kind::Map), field("a", Kind::Set), field("old", Kind::Register)];
        assert_eq!(names, expected.iter().collect::<Vec<_>>());
        let FieldChange::Change(Operation::Update(home)) = &all[0].1 else { panic!("a map") };
        assert_eq!(home.len(), 2);
        let both = Operation::Add(vec!["x".into(), "y".into()]);
        assert_eq!(all[1].1, FieldChange::Change(both));
        assert_eq!(all[2].1, FieldChange::Remove);

        let twice = operation(read(&["a:flag=on", "a:flag=off"]), Vec::new());
        assert!(twice.expect_err("not one change").contains("twice"));
        let summed = operation(read(&["c:counter+=2", "c:counter-=5"]), Vec::new());
        let one = (field("c", Kind::Counter), FieldChange::Change(increment(-3)));
        assert_eq!(summed, Ok(Operation::Update(vec![one])));
    }
}
