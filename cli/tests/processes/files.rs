//! Files that are not what they should be: the program says which one, and ends with exit 2. It does not panic, does not
//! read a hundred megabytes, and does not repeat a file of garbage to whoever has to read the error.

use std::{fs, path::Path};

use crate::testnet::Testnet;

/// What a file may hold instead, with its name. `good` is what it held.
fn nasties(good: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let deep = |open: &str, close: &str| {
        format!("{}{}", open.repeat(10_000), close.repeat(10_000)).into_bytes()
    };
    let mut noise: Vec<u8> =
        (0..2000u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    noise[0] = 0xff; // never a text by chance
    vec![
        ("nothing", Vec::new()),
        ("a half of itself", good[..good.len() / 2].to_vec()),
        ("noise", noise),
        ("zeros", vec![0; 500]),
        ("one line without an end", vec![b'a'; 200 << 10]),
        ("lists 10,000 deep", deep("[", "]")),
        ("a setting of lists 10,000 deep", [&b"format = "[..], &deep("[", "]")].concat()),
        ("tables 10,000 deep", [&b"format = "[..], &deep("{a=", "}")].concat()),
        ("a key 10,000 deep", [&b"format"[..], &b".a".repeat(10_000), b" = 1"].concat()),
        ("maps 10,000 deep", deep("{\"epoch\":", "}")),
        (
            "other types",
            b"format = [1]\ncluster = 7\nnode = { n = 1 }\nseeds = \"here\"\n".to_vec(),
        ),
        ("another language", b"{\"format\": 1, \"node\": \"n1\"}".to_vec()),
    ]
}

#[test]
fn damaged_files_are_refused_by_name() {
    let testnet = Testnet::up(1, 27_100);
    testnet.ok(&["testnet", "kill", "--all"]);
    let config = testnet.node_config(1);
    let run = ["node", "run", "--config", config.to_str().expect("plain path")];
    let cases: &[(&str, &[&str])] = &[
        ("n1/node.toml", &run),
        ("cluster.secret", &run),
        ("n1/node.pem", &run),
        ("n1/node.key", &run),
        ("ca.pem", &run),
        ("view.json", &run),
        ("n1/data/identity", &run),
        ("profile.toml", &["get", "k"]),
        ("user.pem", &["get", "k"]),
        ("user.key", &["get", "k"]),
        ("testnet.toml", &["testnet", "start", "n1"]),
    ];
    for (file, arguments) in cases {
        let path = testnet.folder().join(file);
        let good = fs::read(&path).expect("a file of the testnet");
        for (what, nasty) in nasties(&good) {
            fs::write(&path, nasty).expect("ours");
            refused(&testnet, arguments, file, what);
        }
        // a hole of a hundred megabytes: no disk, but memory if somebody reads it
        fs::File::create(&path).and_then(|file| file.set_len(100 << 20)).expect("ours");
        refused(&testnet, arguments, file, "100 MB");
        fs::write(&path, good).expect("ours");
    }
    testnet.ok(&["testnet", "start", "n1"]);
    testnet.ok(&["put", "k", "v"]);
}

fn refused(testnet: &Testnet, arguments: &[&str], file: &str, what: &str) {
    let ran = testnet.run(arguments);
    let words = ran.stderr.chars().take(300).collect::<String>();
    assert_eq!(ran.code, 2, "{file} is {what}: {words}");
    // the data directory is named rather than our file in it
    let name = Path::new(file.trim_end_matches("/identity")).file_name().expect("a name");
    let name = name.to_str().expect("plain");
    assert!(ran.stderr.contains(name), "{file} is {what}, and the error does not name it: {words}");
    assert!(!ran.stderr.contains("panicked"), "{file} is {what}: {words}");
    assert!(ran.stderr.len() < 3000, "{file} is {what}: {} bytes of error", ran.stderr.len());
}
