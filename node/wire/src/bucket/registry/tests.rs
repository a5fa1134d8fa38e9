//! The laws of the join, names, generations, bounds, bytes.

use atoll_ring::Level;
use proptest::prelude::*;

use super::*;
use crate::bucket::{Properties, Property};

fn creation(name: &str, kind: Kind, n: u8) -> Creation {
    Creation { name: name.into(), kind, n: Some(n), properties: Properties::default() }
}

fn create(registry: &mut Registry, name: &str, kind: Kind, n: u8) -> BucketId {
    registry.create(&creation(name, kind, n), 3, 1).expect("it can be").0
}

/// One step of somebody's, in a world of few names so that they meet.
#[derive(Clone, Debug)]
enum Step {
    Create(u8, Kind, u8),
    /// The so-manieth bucket.
    Alter(usize, u8),
    Drop(usize),
    /// Another node's registry is heard of.
    Hear(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop::sample::select(vec![Kind::Register, Kind::Counter]);
    prop_oneof![
        (0u8..3, kind, 1u8..3).prop_map(|(name, kind, n)| Step::Create(name, kind, n)),
        (0usize..6, 1u8..3).prop_map(|(which, level)| Step::Alter(which, level)),
        (0usize..6).prop_map(Step::Drop),
        (0usize..3).prop_map(Step::Hear),
    ]
}

/// Three registries that nodes can come to.
fn reachable() -> impl Strategy<Value = [Registry; 3]> {
    prop::collection::vec((0usize..3, step()), 0..40).prop_map(|steps| {
        let mut nodes = [0; 3].map(|_| Registry::new(3));
        for (at, step) in steps {
            let others = nodes.clone();
            let node = u32::try_from(at).expect("small");
            let registry = &mut nodes[at];
            let nth =
                |registry: &Registry, which: usize| registry.entries().map(|(id, _)| id).nth(which);
            match step {
                Step::Create(name, kind, n) => {
                    let _ = registry.create(&creation(&format!("b{name}"), kind, n), 3, node);
                }
                Step::Alter(which, level) => {
                    let r = Some(Level::Count(level));
                    let set = Properties { r, ..Properties::default() };
                    let alteration = Alteration { set, unset: Vec::new() };
                    if let Some(id) = nth(registry, which) {
                        let _ = registry.alter(id, &alteration, node);
                    }
                }
                Step::Drop(which) => {
                    if let Some(id) = nth(registry, which) {
                        let _ = registry.drop_bucket(id);
                    }
                }
                Step::Hear(from) => drop(registry.join(&others[from])),
            }
        }
        nodes
    })
}

fn joined(a: &Registry, b: &Registry) -> Registry {
    let mut joined = a.clone();
    let changed = joined.join(b);
    assert_eq!(changed.is_empty(), joined == *a, "what has changed is said");
    joined
}

proptest! {
    /// Commutative, associative, idempotent, monotone, and equal ones have equal bytes.
    #[test]
    fn laws_of_the_join([a, b, c] in reachable()) {
        prop_assert_eq!(joined(&a, &b), joined(&b, &a));
        prop_assert_eq!(joined(&a, &b).encode(), joined(&b, &a).encode());
        prop_assert_eq!(joined(&joined(&a, &b), &c), joined(&a, &joined(&b, &c)));
        prop_assert_eq!(joined(&a, &a), a.clone());
        let both = joined(&a, &b);
        prop_assert_eq!(joined(&both, &a), both.clone());
        for (id, entry) in a.entries().chain(b.entries()) {
            let kept = both.entry(id).expect("nothing is forgotten");
            prop_assert!(!entry.dropped || kept.dropped, "a drop is for ever");
            prop_assert!(entry.version <= kept.version);
        }
        prop_assert_eq!(both.digest() == a.digest(), both == a);
    }

    /// Bytes come back as they were; cut anywhere, and with a byte behind, they are none.
    #[test]
    fn bytes_come_back([a, b, _] in reachable()) {
        let registry = joined(&a, &b);
        let bytes = registry.encode();
        prop_assert_eq!(Registry::decode(&bytes, 3), Ok(registry.clone()));
        for length in 0..bytes.len() {
            prop_assert!(Registry::decode(&bytes[..length], 3).is_err());
        }
        let longer = [&bytes[..], &[0]].concat();
        prop_assert_eq!(Registry::decode(&longer, 3), Err(RegistryError::Malformed));
    }

    /// Any bytes are a registry in its one form, or none.
    #[test]
    fn noise_is_harmless(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(registry) = Registry::decode(&bytes, 3) {
            prop_assert_eq!(registry.encode(), bytes);
        }
    }
}

/// Two that were created apart under one name: the smaller id has the name, the other is read by its id, and which is
/// which does not depend on who looks.
#[test]
fn the_smallest_id_takes_the_name() {
    let (mut here, mut there) = (Registry::new(3), Registry::new(3));
    let register = create(&mut here, "a", Kind::Register, 3);
    let counter = create(&mut there, "a", Kind::Counter, 3);
    let (first, second) = (register.min(counter), register.max(counter));
    let both = joined(&here, &there);
    for both in [&both, &joined(&there, &here)] {
        assert_eq!(both.resolve("a").map(|(id, _)| id), Ok(first));
        for id in [first, second] {
            for digits in [8, 9, 32] {
                let text = format!("a@{}", &id.to_string()[..digits]);
                assert_eq!(both.resolve(&text).map(|(id, _)| id), Ok(id));
                assert_eq!(both.resolve(&text.to_uppercase().replace('A', "a")).is_ok(), {
                    // digits may be capital, the name is as it was given
                    let capital = text.to_uppercase().replace('A', "a");
                    capital.starts_with("a@")
                });
            }
        }
        assert_eq!(both.living("a").len(), 2);
    }
    // the one that has the name goes: the other takes it
    let mut after = both.clone();
    assert_eq!(after.drop_bucket(first), Ok(true));
    assert_eq!(after.resolve("a").map(|(id, _)| id), Ok(second));
}

/// What does not lead to a bucket, and why.
#[test]
fn names_that_lead_nowhere() {
    let mut registry = Registry::new(3);
    let id = create(&mut registry, "a", Kind::Register, 3);
    let unresolved = |registry: &Registry, text: &str| registry.resolve(text).err();
    let name = || "b".to_owned();
    assert_eq!(unresolved(&registry, "b"), Some(Unresolved::Unknown { name: name() }));
    for text in ["a@", "a@1234567", "a@1234567g", &format!("a@{id}0")] {
        let text = text.to_owned();
        assert_eq!(unresolved(&registry, &text), Some(Unresolved::NoId { text: text.clone() }));
    }
    let other = format!("b@{id}");
    assert_eq!(unresolved(&registry, &other), Some(Unresolved::Unknown { name: other.clone() }));
    registry.drop_bucket(id).expect("it is there");
    let name = "a".to_owned();
    assert_eq!(unresolved(&registry, "a"), Some(Unresolved::Dropped { name }));
}

/// Created again it is another bucket, of the next generation, whatever kind it was and is.
#[test]
fn dropping_ends_a_generation() {
    let mut registry = Registry::new(3);
    let first = create(&mut registry, "a", Kind::Register, 3);
    assert_eq!(registry.drop_bucket(first), Ok(true));
    assert_eq!(registry.drop_bucket(first), Ok(false));
    let second = create(&mut registry, "a", Kind::Register, 3);
    assert_ne!(first, second);
    registry.drop_bucket(second).expect("it is there");
    let third = create(&mut registry, "a", Kind::Set, 2);
    assert_eq!(registry.entry(third).expect("made").definition.generation, 2);
    let refused = registry.alter(first, &Alteration::default(), 1);
    assert_eq!(refused, Err(Refused::Dropped { name: "a".to_owned().try_into().expect("good") }));
}

/// A name is taken by what it stands for; the very same again is no mistake and changes nothing.
#[test]
fn a_name_is_taken_once() {
    let mut registry = Registry::new(3);
    let id = create(&mut registry, "a", Kind::Register, 2);
    let before = registry.clone();
    assert_eq!(registry.create(&creation("a", Kind::Register, 2), 3, 9), Ok((id, false)));
    for other in [creation("a", Kind::Register, 3), creation("a", Kind::Lww, 2)] {
        let refused = registry.create(&other, 3, 9);
        assert!(matches!(refused, Err(Refused::Exists { n: 2, .. })), "{refused:?}");
    }
    let refused = registry.create(&creation("default", Kind::Register, 3), 3, 1);
    assert_eq!(refused, Err(BadDefinition::Default.into()));
    let refused = registry.create(&creation("b", Kind::Register, 4), 3, 1);
    assert_eq!(refused, Err(BadDefinition::NAboveReplicas { n: 4, replicas: 3 }.into()));
    assert_eq!(registry, before);
}

/// `default` is always there, can be altered, and cannot be dropped, nor by a node that says so.
#[test]
fn the_default_bucket_stays() {
    let mut registry = Registry::new(3);
    let (id, _) = registry.resolve("default").expect("always there");
    assert_eq!(id, BucketId::default_bucket(3));
    assert_eq!(registry.drop_bucket(id), Err(Refused::DefaultStays));
    let set = Properties { w: Some(Level::All), ..Properties::default() };
    assert_eq!(registry.alter(id, &Alteration { set, unset: Vec::new() }, 1), Ok(true));
    let mut lying = registry.clone();
    let dropped = Entry { dropped: true, ..Entry::clone(registry.entry(id).expect("there")) };
    lying.entries.insert(id, Arc::new(dropped));
    assert!(Registry::decode(&lying.encode(), 3).is_err());
    assert!(Registry::new(3).join(&lying) == [id], "its properties are heard, its end is not");
    let mut heard = Registry::new(3);
    heard.join(&lying);
    assert_eq!(heard, registry);
}

/// Altered on two sides under one number: the greater node wins, everywhere, and the next change counts on from there.
#[test]
fn the_greater_version_wins() {
    let mut here = Registry::new(3);
    let id = create(&mut here, "a", Kind::Register, 3);
    let mut there = here.clone();
    let set = |r: u8| Alteration {
        set: Properties { r: Some(Level::Count(r)), ..Properties::default() },
        unset: Vec::new(),
    };
    assert_eq!(here.alter(id, &set(1), 5), Ok(true));
    assert_eq!(there.alter(id, &set(2), 4), Ok(true));
    let both = joined(&here, &there);
    let read = |registry: &Registry| {
        let entry = registry.entry(id).expect("there");
        (entry.definition.properties.r, entry.version)
    };
    assert_eq!(read(&both), (Some(Level::Count(1)), Version { number: 2, node: 5 }));
    let mut after = both.clone();
    assert_eq!(after.alter(id, &set(2), 1), Ok(true));
    assert_eq!(read(&after), (Some(Level::Count(2)), Version { number: 3, node: 1 }));
    assert_eq!(read(&joined(&both, &after)), read(&after));
    // nothing new is no change
    assert_eq!(after.alter(id, &set(2), 9), Ok(false));
    let unset = Alteration { set: Properties::default(), unset: vec![Property::R] };
    assert_eq!(after.alter(id, &unset, 9), Ok(true));
    assert_eq!(read(&after).0, None);
    let bad = set(4);
    assert!(matches!(after.alter(id, &bad, 9), Err(Refused::Bad(_))));
}

/// There is room for so many, dropped ones included; what others have made is taken over beyond that.
#[test]
fn there_is_a_bound() {
    let mut registry = Registry::new(3);
    for number in 1..BUCKETS_MAX {
        let id = create(&mut registry, &format!("b{number}"), Kind::Register, 3);
        registry.drop_bucket(id).expect("it is there");
    }
    let refused = registry.create(&creation("one more", Kind::Register, 3), 3, 1);
    assert_eq!(refused, Err(Refused::TooMany));
    let mut other = Registry::new(3);
    let id = create(&mut other, "elsewhere", Kind::Register, 3);
    assert_eq!(registry.join(&other), [id]);
    assert_eq!(Registry::decode(&registry.encode(), 3), Ok(registry));
    let many = postcard::to_stdvec(&u32::MAX).expect("in memory");
    assert_eq!(Registry::decode(&many, 3), Err(RegistryError::TooMany { count: u32::MAX }));
}
