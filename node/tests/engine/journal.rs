//! Damage to the engine's journal.

use std::{collections::BTreeMap, ops::Range, path::PathBuf};

use crate::image::{Image, Led, table};

/// A part of a frame, by name, and where it lies.
type Field = (&'static str, Range<usize>);

/// A store whose newest commits lie in the journal alone, as small as its frames allow.
fn image() -> (Image, PathBuf, Vec<Vec<Field>>) {
    let image = Image::of(120, 40, 4, false);
    let mut journals = image.files("jnl");
    assert_eq!(journals.len(), 1, "{journals:?}");
    let (journal, _) = journals.remove(0);
    let bytes = image.bytes(&journal);
    let frames = frames(&bytes);
    assert!(frames.len() >= 120, "{} frames", frames.len());
    let end = frames.last().and_then(|frame| frame.last()).expect("a frame").1.end;
    image.set(&journal, &bytes[..end]); // what is laid out ahead need not be copied each time
    (image, journal, frames)
}

const START: [(&str, usize); 3] =
    [("start: tag", 1), ("start: number of items", 4), ("start: sequence number", 8)];
const ITEM: [(&str, usize); 7] = [
    ("item: tag", 1),
    ("item: kind of value", 1),
    ("item: compression", 1),
    ("item: keyspace", 8),
    ("item: length of the key", 2),
    ("item: length of the value", 4),
    ("item: length on disk", 4),
];
const END: [(&str, usize); 3] = [("end: tag", 1), ("end: checksum", 8), ("end: magic", 4)];

/// The frames of a journal, each as its fields: a start, items, and an end with a checksum over the items.
fn frames(bytes: &[u8]) -> Vec<Vec<Field>> {
    let number = |range: Range<usize>| {
        bytes[range].iter().rev().fold(0usize, |number, byte| number << 8 | usize::from(*byte))
    };
    let (mut frames, mut at) = (Vec::new(), 0);
    while bytes.get(at) == Some(&1) {
        let mut frame = Vec::new();
        for (name, length) in START {
            push(&mut frame, &mut at, name, length);
        }
        for _ in 0..number(frame[1].1.clone()) {
            for (name, length) in ITEM {
                push(&mut frame, &mut at, name, length);
            }
            let (key, value) = (number(at - 10..at - 8), number(at - 4..at));
            push(&mut frame, &mut at, "item: key", key);
            push(&mut frame, &mut at, "item: value", value);
        }
        for (name, length) in END {
            push(&mut frame, &mut at, name, length);
        }
        assert_eq!(&bytes[at - 4..at], b"FJL\x03", "this is not how a frame ends");
        frames.push(frame);
    }
    frames
}

fn push(frame: &mut Vec<Field>, at: &mut usize, name: &'static str, length: usize) {
    frame.push((name, *at..*at + length));
    *at += length;
}

/// One bit turned over in each field of an early frame, one in the middle and the last one.
#[test]
fn a_flipped_bit_in_the_journal_is_noticed() {
    let (image, journal, frames) = image();
    let bytes = image.bytes(&journal);
    let mut led: BTreeMap<(String, Led), usize> = BTreeMap::new();
    let mut silent = Vec::new();
    for number in [frames.len() / 4, frames.len() / 2, frames.len() - 1] {
        for (name, range) in &frames[number] {
            for at in places(name, range) {
                for bit in [1, 6] {
                    let mut damaged = bytes.clone();
                    damaged[at] ^= 1 << bit;
                    let came = image.with(&journal, &damaged);
                    *led.entry(((*name).to_owned(), came)).or_default() += 1;
                    if came == Led::Silent {
                        silent.push(format!(
                            "{name} of frame {number}, byte {}, bit {bit}",
                            at - range.start
                        ));
                    }
                }
            }
        }
    }
    table("one bit of the journal", &led);
    assert!(silent.is_empty(), "{silent:#?}");
}

/// A sequence number is outside the engine's checksum. One that has become higher hides later commits, and the commit number
/// tells. One that has become lower hides its own commit behind an earlier write of the same key, and **nobody notices**
/// here: what is found is what was true before. The next comparison with another owner finds and mends it. The engine's
/// own numbers go backwards over a clean stop, so an order among them is nothing to rely on.
#[test]
fn a_sequence_number_that_is_too_low_is_noticed_by_no_single_node() {
    let (image, journal, frames) = image();
    let bytes = image.bytes(&journal);
    let mut led: BTreeMap<(String, Led), usize> = BTreeMap::new();
    let (name, range) = frames[frames.len() - 20][2].clone();
    for at in range {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            let was_set = bytes[at] & 1 << bit != 0;
            let came = image.with(&journal, &damaged);
            assert!(came != Led::Silent || was_set, "a higher number is noticed");
            *led.entry((name.to_owned(), came)).or_default() += 1;
        }
    }
    table("the sequence number of a key's newest write", &led);
    assert!(led.contains_key(&(name.to_owned(), Led::Silent)), "the engine has learned: good news");
}

/// Of a field the first and the last byte; of a number that says how many come after it none that makes it gigabytes; of
/// the sequence number all.
fn places(name: &str, range: &Range<usize>) -> Vec<usize> {
    let last = range.end - 1;
    match name {
        "start: sequence number" => range.clone().collect(),
        "item: length of the value" | "item: length on disk" => vec![range.start, range.start + 1],
        _ if last == range.start => vec![last],
        _ => vec![range.start, last],
    }
}

/// The journal ends at any byte of its last two commits, and at any frame before them.
#[test]
fn a_journal_that_is_cut_is_noticed() {
    let (image, journal, frames) = image();
    let bytes = image.bytes(&journal);
    let begin = |frame: usize| frames[frame][0].1.start;
    let cuts = (0..frames.len()).step_by(10).map(begin).chain(begin(frames.len() - 2)..bytes.len());
    let mut led: BTreeMap<(String, Led), usize> = BTreeMap::new();
    for cut in cuts {
        let came = image.with(&journal, &bytes[..cut]);
        *led.entry(("cut short".to_owned(), came)).or_default() += 1;
        assert!(matches!(came, Led::LossNoticed | Led::EngineRefuses), "cut at {cut}: {came}");

        if cut % 8 != 0 {
            continue;
        }
        let mut zeroed = bytes.clone();
        zeroed[cut..].fill(0);
        let came = image.with(&journal, &zeroed);
        *led.entry(("zeros from there".to_owned(), came)).or_default() += 1;
        assert!(matches!(came, Led::LossNoticed | Led::EngineRefuses), "zeros from {cut}: {came}");
    }
    assert_eq!(image.with(&journal, &bytes), Led::Whole, "undamaged");
    table("a journal cut short", &led);
}
