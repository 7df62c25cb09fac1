//! Private messages: at a quiet rate, at a fixed one, at half of the most and at the most that gets through.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::time::sleep;

use super::load::{Measured, Pairs};
use super::procstat::threads;
use super::programs::Running;
use super::report::Who;
use super::{Bench, floor};

/// A second; quiet enough that a message meets no other.
const QUIET_PER_S: f64 = 160.0;
/// In flight over all pairs: the number with which most gets through counts.
const IN_FLIGHT: [usize; 3] = [64, 256, 1024];
const MOST: &str = "the most";
const WARM_IN_FLIGHT: usize = 64;
/// Processors: beyond it the load tool may be what is measured.
const LOAD_BUSY_MAX: f64 = 0.9;
/// Of the first cluster of each build: the broker compiles what the cluster has it do, too.
const WARM_FIRST_S: f64 = 15.0;
const WARM_S: f64 = 3.0;
/// After the last vnode is ready, before threads are counted.
const SETTLE: Duration = Duration::from_secs(2);

impl Bench {
    pub(super) async fn message_floor(&mut self) -> Result<()> {
        let seconds = self.options.seconds;
        let kafka = self.services.kafka;
        let (_, us) = self.log.at_rate(self.options.rate, seconds, kafka).await?;
        self.note(Who::Floor, &of_kafka(&self.options.rate_name()), "µs", us);
        let (per_s, flood) = self.log.at_rate(f64::INFINITY, seconds, kafka).await?;
        self.note(Who::Floor, &format!("{MOST}: messages/s (floor: records)"), "/s", per_s);
        self.note(Who::Floor, &of_kafka(MOST), "µs", flood);
        println!(
            "Floor: Kafka takes {us:.0} µs for a bare record at {}/s, {flood:.0} µs at {per_s:.0}/s",
            self.options.rate
        );
        let [read, told] = self.log.times(QUIET_PER_S, seconds).await?;
        let (back, us) = floor::echo(&self.server, QUIET_PER_S, seconds).await?;
        println!(
            "Floor at 160/s: produce→read {:.0} µs (p99 {:.0}), produce→ack {:.0} (p99 {:.0}), echo {:.0} (p99 {:.0})",
            read[0], read[1], told[0], told[1], back[0], back[1]
        );
        self.note(Who::Floor, "160/s: delivery p50 (floor: produce→read)", "µs", read[0]);
        self.note(Who::Floor, "160/s: delivery p99", "µs", read[1]);
        self.note(Who::Floor, "160/s: reply p50 (floor: produce→ack)", "µs", told[0]);
        self.note(Who::Floor, "160/s: reply p99", "µs", told[1]);
        self.note(Who::Floor, "160/s: bare echo p50", "µs", back[0]);
        self.note(Who::Floor, "160/s: bare echo p99", "µs", back[1]);
        self.note(Who::Floor, "160/s: processor time of one echo", "µs", us);
        Ok(())
    }

    pub(super) async fn messages(&mut self, who: Who, cluster: &Running, first: bool) -> Result<()> {
        let (seconds, watched) = (self.options.seconds, &cluster.watched);
        sleep(SETTLE).await;
        let idle: Vec<f64> = watched.nodes.iter().map(|pid| threads(*pid)).collect::<Result<_>>()?;
        println!("{who:?} threads of an idle node: {idle:?}");
        self.note(who, "threads of an idle node", "", crate::median(idle));

        let pairs = Pairs::open(cluster, self.options.pairs).await?;
        println!("{who:?} pairs: {} of which {:.0} % apart", self.options.pairs, pairs.apart * 100.0);
        self.note(who, "pairs at home on different nodes", "%", pairs.apart * 100.0);
        let warm = if first { WARM_FIRST_S } else { WARM_S };
        pairs.in_flight(WARM_IN_FLIGHT, warm, watched).await?;

        let (before, began) = (watched.cpu()?, Instant::now());
        sleep(Duration::from_secs_f64(seconds)).await;
        let idle = watched.cpu()?.since(&before).us_each(began.elapsed().as_secs_f64());
        println!(
            "{who:?} idle: processor time in a second {:.0} µs (nodes {:.0}, Redis {:.0}, Kafka {:.0})",
            idle.total(),
            idle.nodes,
            idle.redis,
            idle.kafka
        );
        self.note(who, "idle: processor time in a second, nodes", "µs", idle.nodes);
        self.note(who, "idle: processor time in a second, total", "µs", idle.total());

        let quiet = pairs.at_rate(QUIET_PER_S, seconds, watched).await?;
        show(who, "160/s", &quiet);
        self.note(who, "160/s: delivery p50 (floor: produce→read)", "µs", quiet.delivery[0]);
        self.note(who, "160/s: delivery p99", "µs", quiet.delivery[1]);
        self.note(who, "160/s: reply p50 (floor: produce→ack)", "µs", quiet.reply[0]);
        self.note(who, "160/s: reply p99", "µs", quiet.reply[1]);

        let fixed = pairs.at_rate(self.options.rate, seconds, watched).await?;
        self.note_message(who, &self.options.rate_name(), &fixed);

        let mut most: Option<(usize, Measured)> = None;
        for count in IN_FLIGHT {
            let measured = pairs.in_flight(count, seconds, watched).await?;
            show(who, &format!("{count} in flight"), &measured);
            self.note(who, &format!("{count} in flight: messages/s"), "/s", measured.per_s);
            self.note(who, &format!("{count} in flight: delivery p50"), "µs", measured.delivery[0]);
            let total = format!("{count} in flight: processor time of one message, total");
            self.note(who, &total, "µs", measured.cpu.total());
            if most.as_ref().is_none_or(|(_, most)| measured.per_s > most.per_s) {
                most = Some((count, measured));
            }
        }
        let Some((count, most)) = most else { return Ok(()) };
        println!("{who:?} most gets through with {count} in flight");
        self.note_message(who, MOST, &most);
        let half = pairs.at_rate(most.per_s / 2.0, seconds, watched).await?;
        self.note_message(who, "half of the most", &half);
        Ok(())
    }

    fn note_message(&mut self, who: Who, name: &str, m: &Measured) {
        show(who, name, m);
        let floor = if name == MOST { " (floor: records)" } else { "" };
        self.note(who, &format!("{name}: messages/s{floor}"), "/s", m.per_s);
        self.note(who, &format!("{name}: delivery p50"), "µs", m.delivery[0]);
        self.note(who, &format!("{name}: delivery p99"), "µs", m.delivery[1]);
        self.note(who, &format!("{name}: reply p50"), "µs", m.reply[0]);
        self.note(who, &format!("{name}: reply p99"), "µs", m.reply[1]);
        self.note(who, &of_kafka(name), "µs", m.cpu.kafka);
        let times = [
            ("nodes", m.cpu.nodes),
            ("Redis", m.cpu.redis),
            ("coordinator", m.cpu.coordinator),
            ("total", m.cpu.total()),
            ("the load tool, not in the total", m.cpu.load),
        ];
        for (kind, us) in times {
            self.note(who, &format!("{name}: processor time of one message, {kind}"), "µs", us);
        }
        self.note(who, &format!("{name}: processors taken by other programs"), "", m.others_busy);
    }
}

fn of_kafka(name: &str) -> String {
    format!("{name}: processor time of one message, Kafka (floor: one record)")
}

fn show(who: Who, what: &str, m: &Measured) {
    let cpu = &m.cpu;
    println!(
        "{who:?} {what}: {:.0}/s; delivery p50 {:.0} µs, p99 {:.0}; reply p50 {:.0} µs, p99 {:.0}; \
         processor time of one: {:.0} µs (nodes {:.0}, Redis {:.0}, Kafka {:.0}, coordinator {:.0}), load tool {:.0} µs; \
         processors taken by the load tool {:.2}, by other programs {:.2}",
        m.per_s,
        m.delivery[0],
        m.delivery[1],
        m.reply[0],
        m.reply[1],
        cpu.total(),
        cpu.nodes,
        cpu.redis,
        cpu.kafka,
        cpu.coordinator,
        cpu.load,
        m.load_busy,
        m.others_busy,
    );
    if m.load_busy > LOAD_BUSY_MAX {
        println!("{who:?} {what}: the load tool had a processor to itself, and may be what held this up");
    }
}
