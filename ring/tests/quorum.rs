//! Every rule of a quorum, with what the caller is told.

use atoll_ring::{Level, Quorum, QuorumError, QuorumRequest};

/// A request in short: `"n=3 r=quorum w=all dw=0"`.
fn request(text: &str) -> QuorumRequest {
    let mut request = QuorumRequest::default();
    for option in text.split_whitespace() {
        let (name, value) = option.split_once('=').unwrap();
        let level = || Some(value.parse::<Level>().unwrap());
        match name {
            "n" => request.n = Some(value.parse().unwrap()),
            "r" => request.r = level(),
            "w" => request.w = level(),
            "pr" => request.pr = level(),
            "pw" => request.pw = level(),
            "dw" => request.dw = level(),
            "sloppy" => request.sloppy = Some(value.parse().unwrap()),
            _ => panic!("{name}"),
        }
    }
    request
}

/// What is left out follows from the bucket's N.
#[test]
fn defaults_and_words() {
    let check = |bucket_n: u8, text: &str, expected: [u8; 4]| {
        let quorum = Quorum::new(&request(text), bucket_n).unwrap();
        assert_eq!(
            [quorum.n(), quorum.r(), quorum.w(), quorum.dw()],
            expected,
            "N={bucket_n} {text}"
        );
        assert_eq!(Quorum::check(&request(text)), Ok(()));
    };
    check(1, "", [1, 1, 1, 1]);
    check(2, "", [2, 2, 2, 2]);
    check(3, "", [3, 2, 2, 2]);
    check(4, "", [4, 3, 3, 3]);
    check(5, "", [5, 3, 3, 3]);
    check(16, "", [16, 9, 9, 9]);
    // A smaller n has a smaller majority.
    check(5, "n=2", [2, 2, 2, 2]);
    check(5, "n=3", [3, 2, 2, 2]);
    check(3, "r=one w=all", [3, 1, 3, 3]);
    check(3, "r=two w=three", [3, 2, 3, 3]);
    check(3, "r=quorum w=quorum dw=quorum", [3, 2, 2, 2]);
    // Fewer fsynced acks, down to none.
    check(3, "w=3 dw=1", [3, 2, 3, 1]);
    check(3, "w=all dw=quorum", [3, 2, 3, 2]);
    check(3, "dw=0", [3, 2, 2, 0]);
    check(3, "w=1", [3, 2, 1, 1]);
}

/// How many answers must be owners': none by default, all of them if strict, whatever pr and pw say.
#[test]
fn owners_among_the_answers() {
    let check = |text: &str, sloppy: bool, pr: u8, pw: u8| {
        let quorum = Quorum::new(&request(text), 3).unwrap();
        assert_eq!((quorum.sloppy(), quorum.pr(), quorum.pw()), (sloppy, pr, pw), "{text}");
    };
    check("", true, 0, 0);
    check("pr=quorum pw=1", true, 2, 1);
    check("r=all pr=all", true, 3, 0);
    check("sloppy=false", false, 2, 2);
    check("sloppy=false r=1 w=3", false, 1, 3);
    check("sloppy=false r=3 pr=1 pw=0", false, 3, 2);
}

/// What cannot be met, the rule it breaks, and whether a client can tell without knowing the
/// bucket.
#[test]
fn refusals() {
    let check =
        |bucket_n: u8, text: &str, known_at_once: bool, error: QuorumError, message: &str| {
            assert_eq!(Quorum::new(&request(text), bucket_n), Err(error), "N={bucket_n} {text}");
            let expected = if known_at_once { Err(error) } else { Ok(()) };
            assert_eq!(Quorum::check(&request(text)), expected, "{text}");
            assert_eq!(error.to_string(), message);
        };
    use QuorumError::{
        DwAboveW, NAboveBucket, PrAboveR, PwAboveW, RAboveN, WAboveN, ZeroN, ZeroR, ZeroW,
    };
    check(3, "n=0", true, ZeroN, "n=0: at least one owner must take part");
    check(3, "r=0", true, ZeroR, "r=0: a read needs at least one answer");
    let zero_w = "w=0: a write needs at least one ack (for speed without fsync ask for dw=0)";
    check(3, "w=0", true, ZeroW, zero_w);
    check(3, "w=0 dw=0", true, ZeroW, zero_w);
    let above = "n=4 is more than the bucket's N=3: only its owners hold its keys";
    check(3, "n=4", false, NAboveBucket { n: 4, bucket_n: 3 }, above);
    let r_above = "r=4 is more than n=3: a read cannot need more answers than owners taking part";
    check(3, "r=4", false, RAboveN { r: 4, n: 3 }, r_above);
    check(5, "n=3 r=4", true, RAboveN { r: 4, n: 3 }, r_above);
    let w_above = "w=4 is more than n=3: a write cannot need more acks than owners taking part";
    check(3, "w=4", false, WAboveN { w: 4, n: 3 }, w_above);
    check(5, "n=3 w=4", true, WAboveN { w: 4, n: 3 }, w_above);
    let pr_above = "pr=2 is more than r=1: only the answers that are waited for can be owners'";
    check(3, "r=1 pr=2", true, PrAboveR { pr: 2, r: 1 }, pr_above);
    check(3, "r=1 pr=quorum", false, PrAboveR { pr: 2, r: 1 }, pr_above);
    check(5, "n=3 r=1 pr=quorum", true, PrAboveR { pr: 2, r: 1 }, pr_above);
    // Also where pr would not be looked at.
    check(3, "r=1 pr=2 sloppy=false", true, PrAboveR { pr: 2, r: 1 }, pr_above);
    let pw_above = "pw=3 is more than w=2: only the acks that are waited for can be owners'";
    check(3, "w=2 pw=3", true, PwAboveW { pw: 3, w: 2 }, pw_above);
    check(3, "pw=all", false, PwAboveW { pw: 3, w: 2 }, pw_above);
    let dw_above = "dw=3 is more than w=2: only the acks that are waited for can be fsynced ones";
    check(3, "w=2 dw=3", true, DwAboveW { dw: 3, w: 2 }, dw_above);
    check(3, "dw=3", false, DwAboveW { dw: 3, w: 2 }, dw_above);
    check(5, "n=3 dw=all", true, DwAboveW { dw: 3, w: 2 }, dw_above);
    check(3, "dw=all", false, DwAboveW { dw: 3, w: 2 }, dw_above);
}

/// Over all small requests: what `check` refuses, `new` refuses too, for every bucket, and what
/// `new` grants keeps the rules.
#[test]
fn check_and_new_agree() {
    let levels = || {
        let counts = (0..=4).map(|count| Some(Level::Count(count)));
        counts.chain([None, Some(Level::Quorum), Some(Level::All)])
    };
    for n in (0..=4).map(Some).chain([None]) {
        for r in levels() {
            for w in levels() {
                // The same rules for all three, so one part at a time is enough.
                for (part, sloppy) in parts(levels) {
                    let request = QuorumRequest { n, r, w, sloppy, ..part };
                    let mut granted = false;
                    for bucket_n in 1..=5 {
                        if let Ok(quorum) = Quorum::new(&request, bucket_n) {
                            granted = true;
                            let (n, r, w) = (quorum.n(), quorum.r(), quorum.w());
                            assert!(1 <= r && r <= n && 1 <= w && w <= n && n <= bucket_n);
                            assert!(quorum.pr() <= r && quorum.pw() <= w && quorum.dw() <= w);
                            let counted = (quorum.pr(), quorum.pw());
                            assert!(quorum.sloppy() || counted == (r, w));
                            let json = serde_json::to_string(&quorum).unwrap();
                            assert_eq!(serde_json::from_str::<Quorum>(&json).unwrap(), quorum);
                        }
                    }
                    if Quorum::check(&request).is_err() {
                        assert!(!granted, "{request:?}");
                    }
                }
            }
        }
    }
}

/// Every level as pr, as pw and as dw, sloppy and strict.
fn parts<I: Iterator<Item = Option<Level>>>(
    levels: impl Fn() -> I,
) -> Vec<(QuorumRequest, Option<bool>)> {
    let none = QuorumRequest::default();
    levels()
        .flat_map(|level| {
            [
                QuorumRequest { pr: level, ..none },
                QuorumRequest { pw: level, ..none },
                QuorumRequest { dw: level, ..none },
            ]
        })
        .flat_map(|part| [None, Some(true), Some(false)].map(|sloppy| (part, sloppy)))
        .collect()
}

/// Levels are read from words and numbers, and shown so that they read back.
#[test]
fn levels() {
    let check = |text: &str, level: Level, shown: &str| {
        assert_eq!(text.parse(), Ok(level));
        assert_eq!(level.to_string(), shown);
        assert_eq!(shown.parse(), Ok(level));
    };
    check("one", Level::Count(1), "1");
    check("two", Level::Count(2), "2");
    check("three", Level::Count(3), "3");
    check("quorum", Level::Quorum, "quorum");
    check("all", Level::All, "all");
    check("0", Level::Count(0), "0");
    check("7", Level::Count(7), "7");
    for text in ["", "many", "Quorum", "-1", "+1", "1.5", "256", " 1", "four"] {
        let error = text.parse::<Level>().unwrap_err().to_string();
        assert!(error.contains("one of one, two, three, quorum, all"), "{error}");
    }
}

/// A quorum from outside is checked like any other, and a request may leave everything out.
#[test]
fn documents() {
    let json = r#"{"n":3,"r":2,"w":4,"pr":0,"pw":0,"dw":2,"sloppy":true}"#;
    let error = serde_json::from_str::<Quorum>(json).unwrap_err().to_string();
    assert!(error.contains("w=4 is more than n=3"), "{error}");
    assert_eq!(serde_json::from_str::<QuorumRequest>("{}").unwrap(), QuorumRequest::default());
    let json = r#"{"r":"quorum","w":{"count":1}}"#;
    assert_eq!(serde_json::from_str::<QuorumRequest>(json).unwrap(), request("r=quorum w=1"));
}
