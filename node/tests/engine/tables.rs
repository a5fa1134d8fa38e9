//! Damage to what has left the journal: tables, and values that lie apart from them.

use std::collections::BTreeMap;

use crate::image::{Image, Led, table};

/// Bits turned over all over the tables and the values of a store that was closed in order, and then opened and read.
#[test]
fn a_flipped_bit_at_rest_is_noticed() {
    const BITS_PER_FILE: usize = 4;
    let image = Image::of(600, 500, 40 << 10, true);
    let mut led: BTreeMap<(String, Led), usize> = BTreeMap::new();
    let files = image.files("keyspaces");
    assert!(files.iter().any(|(path, _)| path.to_string_lossy().contains("blob")), "{files:?}");
    for (file, length) in files {
        let bytes = image.bytes(&file);
        for number in 0..BITS_PER_FILE.min(bytes.len()) {
            let mut damaged = bytes.clone();
            // spread over the file, the two ends included
            let at = number * (bytes.len() - 1) / (BITS_PER_FILE - 1).max(1);
            damaged[at] ^= 1 << (number % 8);
            let came = image.with(&file, &damaged);
            let folder =
                file.components().nth_back(1).map(|part| part.as_os_str().to_string_lossy());
            let kind = format!("{} ({} KiB)", folder.unwrap_or_default(), length / 1024);
            *led.entry((kind, came)).or_default() += 1;
            assert_ne!(came, Led::Silent, "{} at {at}", file.display());
        }
    }
    table("one bit at rest", &led);
}
