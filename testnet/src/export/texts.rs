//! The texts of an export.

use super::{Exported, Network};

/// Starts the node of its folder, on any host with a shell.
pub(super) const START: &str = r#"#!/bin/sh
# Starts the node of this folder and becomes it. Written by `atoll testnet export`.
#
# A node must be told that it starts for the first time: later an empty data directory means that its disk was lost. The
# file first-start says so. It is removed as soon as the node has a data directory of its own.
cd "$(dirname "$0")" || exit 2
if [ -e first-start ] && [ ! -e data/identity ]; then
    (
        while kill -0 $$ 2>/dev/null; do
            if [ -e data/identity ]; then
                rm -f first-start
                break
            fi
            sleep 1
        done &
    )
    exec "${ATOLL:-atoll}" node run --config node.toml --first-start "$@"
fi
rm -f first-start
exec "${ATOLL:-atoll}" node run --config node.toml "$@"
"#;

pub(super) const FIRST_START: &str = "This node was never started. See `start`.\n";

pub(super) const UNIT: &str = "\
# A node of an Atoll cluster; the instance is its name: systemctl enable --now atoll@n1
[Unit]
Description=Atoll node %i
Wants=network-online.target
After=network-online.target

[Service]
User=atoll
Group=atoll
WorkingDirectory=/var/lib/atoll/%i
Environment=ATOLL=/usr/local/bin/atoll
ExecStart=/bin/sh /var/lib/atoll/%i/start
Restart=on-failure
RestartSec=2
# 2: its settings are refused; 10: its disk has failed; 12: it was removed from the ring. A person must look first.
RestartPreventExitStatus=2 10 12
TimeoutStopSec=30
LimitNOFILE=65536
UMask=0077
NoNewPrivileges=yes
PrivateTmp=yes
ProtectHome=yes
ProtectSystem=strict
ReadWritePaths=/var/lib/atoll/%i

[Install]
WantedBy=multi-user.target
";

/// What to do on each host.
pub(super) fn systemd(name: &str, exported: &Exported) -> String {
    let mut text = heading(name, exported);
    if exported.has_placeholders {
        text.push_str(
            "\n## Addresses first\n\nNo address was given, so the nodes have placeholders (192.0.2.0/24 belongs to nobody). \
             Put in the\nreal ones, by which the hosts reach each other, before anything is copied; certificates name no \
             address:\n\n```sh\n",
        );
        text.push_str("put() { grep -rlF \"$1\" . | xargs sed -i \"s/$1/$2/g\"; }\n");
        for node in &exported.nodes {
            text.push_str(&format!("put '{}' '10.0.0.{}:7400'\n", node.address, node.id.0));
        }
        text.push_str("```\n");
    }
    text.push_str(
        "\n## On each host\n\nHere for `n1`; UDP must come through to its port.\n\n```sh\n\
         install -m 755 atoll /usr/local/bin/atoll              # the program, once\n\
         useradd --system --shell /usr/sbin/nologin atoll\n\
         install -d -o atoll -g atoll /var/lib/atoll\n\
         cp -r n1 /var/lib/atoll/n1                             # this folder's n1, brought over a safe way\n\
         chown -R atoll:atoll /var/lib/atoll/n1\n\
         cp atoll@.service /etc/systemd/system/\n\
         systemctl daemon-reload\n\
         systemctl enable --now atoll@n1\n\
         journalctl -u atoll@n1 -f\n```\n",
    );
    text.push_str(rest());
    text
}

/// One container for each node.
pub(super) fn compose(
    name: &str,
    exported: &Exported,
    network: Network,
    (user, group): (u32, u32),
) -> String {
    let name = name.to_lowercase();
    let mut text = format!(
        "\
# Written by `atoll testnet export compose`: see README.md.
name: atoll-{name}

x-node: &node
  image: debian:stable-slim      # any image with a shell and a C library that bin/atoll runs with
  command: [\"/bin/sh\", \"/atoll/start\"]
  user: \"{user}:{group}\"             # who may read the keys
  init: true
  restart: on-failure:5
  stop_grace_period: 30s

services:
"
    );
    for node in &exported.nodes {
        text.push_str(&format!(
            "  {id}:
    <<: *node
    hostname: {id}
    volumes: [\"./bin/atoll:/usr/local/bin/atoll:ro\", \"./{id}:/atoll\"]
    networks:
      ring:
        ipv4_address: {address}
",
            id = node.id,
            address = node.address.ip(),
        ));
    }
    text.push_str(&format!(
        "
networks:
  ring:
    ipam:
      config:
        - subnet: {network}
"
    ));
    text
}

/// What to do with the containers.
pub(super) fn compose_readme(name: &str, exported: &Exported) -> String {
    let mut text = heading(name, exported);
    text.push_str(
        "\n## Start\n\nA compose file binds all nodes to one host: for several hosts see `atoll testnet export systemd`.\n\n\
         ```sh\ndocker compose up -d\ndocker compose logs -f\n```\n\nOn Linux the host reaches the addresses of the \
         containers as they are; elsewhere run clients in a container\nof the same network. Data is kept in `n1/data` and \
         so on.\n",
    );
    text.push_str(rest());
    text
}

fn heading(name: &str, exported: &Exported) -> String {
    let mut text = format!(
        "# A cluster of the shape of testnet {name}\n\nNodes, zones, copies and partitions are the same. Its id, its authority \
         and its secret are new, and it is empty:\nneither data nor buckets come along.\n\n| node | address | zone |\n|---|---|---|\n"
    );
    for node in &exported.nodes {
        text.push_str(&format!("| {} | {} | {} |\n", node.id, node.address, node.zone));
    }
    text
}

fn rest() -> &'static str {
    "
## Then

```sh
atoll status --cluster users/operator/profile.toml         # everything; keep it to yourself
atoll put greeting hello --cluster users/client/profile.toml
```

Keep `ca.key` where no node is: whoever has it can make certificates. Before they expire:
`atoll cluster renew . --all`, then copy each `nK/node.pem` over the old one; nodes take it without a restart. More nodes
come with `atoll cluster token`.
"
}
