//! x
use atoll_sim::{
    faults::Kind,
    run::{Settings, run},
};
fn main() {
    let from: u64 = std::env::args().nth(1).unwrap().parse().unwrap();
    let to: u64 = std::env::args().nth(2).unwrap().parse().unwrap();
    let kinds = Kind::ALL.iter().copied().filter(|k| !k.destroys()).collect();
    let settings = Settings { kinds, canary: None, aloud: std::env::args().nth(3).is_some() };
    let mut all = atoll_sim::figures::Figures::default();
    let start = std::time::Instant::now();
    for seed in from..=to {
        let t = std::time::Instant::now();
        let v = run(seed, &settings);
        println!(
            "{seed} {:?} {} msgs {} {:?} {}",
            t.elapsed(),
            &v.record.hash[..8],
            v.figures.messages,
            v.broken,
            v.figures.settled_ms_max
        );
        all.add(&v.figures);
    }
    println!("{all}\n{} msg/s", all.messages as f64 / start.elapsed().as_secs_f64());
}
