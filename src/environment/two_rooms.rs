//! Two Rooms: a dot that is to go through the door of a wall. The geometry is that of stable-worldmodel, in which LeWorldModel (arXiv
//! 2603.19312) was measured, in the pixels of its pictures of 224 × 224.

use super::canvas::{Canvas, Colour};
use super::{Environment, Outcome, admitted};
use crate::rng::{Generator, Stream};
use crate::{Error, Result};

/// Width and height of the whole.
pub const EXTENT: f64 = 224.0;
/// Thickness of the walls around.
pub const BORDER: f64 = 14.0;
/// Left and right face of the wall in the middle: at 112, 10 thick.
pub const WALL: [f64; 2] = [107.0, 117.0];
/// Upper and lower end of the door: at 49, 14 to each side.
pub const DOOR: [f64; 2] = [35.0, 63.0];
/// Standard deviation of the dot.
pub const RADIUS: f64 = 7.0;
/// The way of a step along each axis.
pub const SPEED: f64 = 5.0;
/// The goal is reached nearer than this.
pub const REACHED: f64 = 16.0;
/// What is stopped by a wall stays this far from it.
pub const CLEARANCE: f64 = 0.5;

const WHITE: Colour = [1.0; 3];
const BLACK: Colour = [0.0; 3];
const RED: Colour = [1.0, 0.0, 0.0];

/// Steps of an episode, unless told otherwise: more than twice those of the longest way through the door, which takes 61.
const STEPS: usize = 150;

/// Where dots may be, `[low, high]` along each axis.
const INSIDE: [f64; 2] = [BORDER + CLEARANCE, EXTENT - BORDER - CLEARANCE];

/// A place, `[x, y]`, from the upper left corner.
pub type Place = [f64; 2];

/// The environment.
#[derive(Clone, Debug, PartialEq)]
pub struct TwoRooms {
    at: Place,
    goal: Place,
    steps: usize,
    longest: usize,
}

impl Default for TwoRooms {
    /// At the start of the episode with seed 0.
    fn default() -> Self {
        Self::new(STEPS)
    }
}

/// Whether a dot can be at a place.
pub fn is_free([x, y]: Place) -> bool {
    let within = |v: f64, [low, high]: [f64; 2]| low < v && v < high;
    let border = [BORDER, EXTENT - BORDER];
    let in_wall = (WALL[0]..=WALL[1]).contains(&x);
    within(x, border) && within(y, border) && (!in_wall || within(y, DOOR))
}

/// Where the shortest way from one place to another crosses the faces of the wall, in the order in which it does; nothing where it
/// does not.
fn crossings(from: Place, to: Place) -> Vec<Place> {
    let (left, right) = (from[0].min(to[0]), from[0].max(to[0]));
    let between = |face: &f64| left < *face && *face < right;
    let mut faces: Vec<f64> = WALL.into_iter().filter(between).collect();
    if from[0] > to[0] {
        faces.reverse();
    }
    // The length of the way is convex in where it crosses: straightening one crossing after the other leads to the shortest.
    const ROUNDS: usize = 30;
    let mut way: Vec<Place> = faces
        .iter()
        .map(|&x| [x, f64::midpoint(DOOR[0], DOOR[1])])
        .collect();
    for i in (0..way.len()).cycle().take(way.len() * ROUNDS) {
        let before = if i == 0 { from } else { way[i - 1] };
        let after = way.get(i + 1).copied().unwrap_or(to);
        let share = (way[i][0] - before[0]) / (after[0] - before[0]);
        way[i][1] = (before[1] + share * (after[1] - before[1])).clamp(DOOR[0], DOOR[1]);
    }
    way
}

/// Length of the shortest way between two places.
pub fn path_length(from: Place, to: Place) -> f64 {
    let crossed = crossings(from, to);
    let starts = std::iter::once(&from).chain(&crossed);
    let ends = crossed.iter().chain(std::iter::once(&to));
    starts.zip(ends).map(|(a, b)| distance(*a, *b)).sum()
}

/// How far two places are apart, through walls.
pub fn distance(a: Place, b: Place) -> f64 {
    (a[0] - b[0]).hypot(a[1] - b[1])
}

/// Where a dot comes that wants to go from a free place to another, at most half the wall's thickness away along each axis. It slides
/// along walls.
fn moved(from: Place, to: Place) -> Place {
    let [x, y] = to.map(|v| v.clamp(INSIDE[0], INSIDE[1]));
    let in_wall = |x: f64| (WALL[0]..=WALL[1]).contains(&x);
    let through = [DOOR[0] + CLEARANCE, DOOR[1] - CLEARANCE];
    if in_wall(from[0]) {
        // The jambs, for as long as it is between them.
        return [x, y.clamp(through[0], through[1])];
    }
    if !in_wall(x) {
        return [x, y];
    }
    let face = if from[0] < WALL[0] { WALL[0] } else { WALL[1] };
    let share = (face - from[0]) / (x - from[0]);
    let crossing = from[1] + share * (y - from[1]);
    if DOOR[0] < crossing && crossing < DOOR[1] {
        [x, y.clamp(through[0], through[1])]
    } else {
        [face - CLEARANCE * (x - from[0]).signum(), y]
    }
}

/// A place in the left (0) or right (1) room, everywhere as likely that is so far from the wall.
fn drawn(room: usize, far: f64, random: &mut impl Generator) -> Place {
    let side = match room {
        0 => [INSIDE[0], WALL[0] - far],
        _ => [WALL[1] + far, INSIDE[1]],
    };
    [side, INSIDE].map(|[low, high]| low + (high - low) * random.uniform_f64())
}

fn picture(at: Place, side: usize) -> Result<Vec<u8>> {
    let mut canvas = Canvas::new(side, EXTENT, WHITE)?;
    canvas.glow(RED, at, RADIUS);
    let far = EXTENT - BORDER;
    for (low, high) in [
        ([0.0, 0.0], [EXTENT, BORDER]),
        ([0.0, far], [EXTENT, EXTENT]),
        ([0.0, BORDER], [BORDER, far]),
        ([far, BORDER], [EXTENT, far]),
        ([WALL[0], BORDER], [WALL[1], DOOR[0]]),
        ([WALL[0], DOOR[1]], [WALL[1], far]),
    ] {
        canvas.rectangle(BLACK, low, high);
    }
    Ok(canvas.bytes())
}

impl TwoRooms {
    /// With episodes of `longest` steps, at the start of that with seed 0.
    pub fn new(longest: usize) -> Self {
        let mut rooms = Self {
            at: [0.0; 2],
            goal: [0.0; 2],
            steps: 0,
            longest,
        };
        rooms.reset(0);
        rooms
    }

    /// Where the dot is.
    pub fn at(&self) -> Place {
        self.at
    }

    /// Where it should be.
    pub fn goal(&self) -> Place {
        self.goal
    }

    /// Begins an episode at a place, with a goal.
    ///
    /// # Errors
    /// [`Error::BadInput`] for a place in a wall or outside.
    pub fn place(&mut self, at: Place, goal: Place) -> Result<()> {
        for (what, place) in [("the dot", at), ("the goal", goal)] {
            if !is_free(place) {
                return Err(Error::BadInput(format!(
                    "{what} cannot be at {place:?}, in a wall or outside of the rooms: x and y go from {BORDER} to {}, without the wall \
                     at x from {} to {} but for its door at y from {} to {}",
                    EXTENT - BORDER,
                    WALL[0],
                    WALL[1],
                    DOOR[0],
                    DOOR[1]
                )));
            }
        }
        (self.at, self.goal, self.steps) = (at, goal, 0);
        Ok(())
    }

    /// Straight towards the goal, as if there were no wall.
    pub fn straight(&self) -> Vec<f64> {
        toward(self.at, self.goal)
    }
}

/// The action that goes straight to a place, and no farther.
fn toward(from: Place, to: Place) -> Vec<f64> {
    let way = [to[0] - from[0], to[1] - from[1]];
    let longest = way[0].abs().max(way[1].abs()).max(SPEED);
    way.map(|v| v / longest).to_vec()
}

/// What cannot happen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Breach {
    /// The wall in the middle is passed through, as if it were not there.
    Wall,
    /// The dot appears so far from where it would be, in any direction, in the same room or in the other.
    Teleport(f64),
}

/// One action and two of its outcomes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Violation {
    /// Where the dot is before.
    pub start: Place,
    /// What is done.
    pub action: [f64; 2],
    /// Where it then is.
    pub possible: Place,
    /// Where it cannot be.
    pub impossible: Place,
}

/// Draws a start and an action, carried out `repeat` times, with what comes of it and what cannot. For a model that expects what is
/// possible the two are the same but for that.
///
/// # Errors
/// [`Error::BadInput`] for a distance that fits nowhere or is no positive number, and for actions that reach through the wall at no start.
pub fn breach(kind: Breach, repeat: usize, seed: u64) -> Result<Violation> {
    /// Draws until one fits; of actions that are carried out ten times one in thirty goes through the wall.
    const TRIES: usize = 100_000;
    let random = &mut Stream::new(seed, "violation", 0);
    let uniform = |random: &mut Stream| 2.0 * random.uniform_f64() - 1.0;
    for _ in 0..TRIES {
        let room = random.below(2);
        let start = drawn(room, CLEARANCE, random);
        let action = [0; 2].map(|_| uniform(random));
        let mut place = start;
        for _ in 0..repeat {
            place = moved(place, [0, 1].map(|axis| place[axis] + SPEED * action[axis]));
        }
        let impossible = match kind {
            Breach::Wall => [0, 1].map(|axis| start[axis] + SPEED * repeat as f64 * action[axis]),
            Breach::Teleport(distance) => {
                let angle = std::f64::consts::PI * uniform(random);
                [
                    place[0] + distance * libm::cos(angle),
                    place[1] + distance * libm::sin(angle),
                ]
            }
        };
        let middle = f64::midpoint(WALL[0], WALL[1]);
        let left = |place: Place| place[0] < middle;
        let fits = match kind {
            Breach::Wall => left(start) == left(place) && left(start) != left(impossible),
            Breach::Teleport(distance) => distance > 0.0,
        };
        let clear = impossible[0] < WALL[0] || impossible[0] > WALL[1];
        if fits && clear && is_free(impossible) {
            return Ok(Violation {
                start,
                action,
                possible: place,
                impossible,
            });
        }
    }
    Err(Error::BadInput(format!(
        "nothing such can be drawn: {kind:?} after an action that is carried out {repeat} times"
    )))
}

impl Environment for TwoRooms {
    fn action_size(&self) -> usize {
        2
    }

    /// The dot begins somewhere in one room, and its goal is somewhere in the other, not so near to the wall that it would be reached
    /// through it.
    fn reset(&mut self, seed: u64) {
        let random = &mut Stream::new(seed, "two rooms", 0);
        let room = random.below(2);
        let beyond = REACHED - (WALL[1] - WALL[0]);
        self.at = drawn(room, CLEARANCE, random);
        self.goal = drawn(1 - room, beyond, random);
        self.steps = 0;
    }

    fn step(&mut self, action: &[f64]) -> Result<Outcome> {
        let action = admitted(action, self.action_size())?;
        let wanted = [0, 1].map(|axis| self.at[axis] + SPEED * action[axis]);
        self.at = moved(self.at, wanted);
        self.steps += 1;
        let terminated = distance(self.at, self.goal) < REACHED;
        Ok(Outcome {
            reward: f64::from(u8::from(terminated)),
            terminated,
            truncated: self.steps >= self.longest,
        })
    }

    fn observe(&self, side: usize) -> Result<Vec<u8>> {
        picture(self.at, side)
    }

    fn observe_goal(&self, side: usize) -> Result<Vec<u8>> {
        picture(self.goal, side)
    }

    /// `[x, y]`.
    fn state(&self) -> Vec<f64> {
        self.at.to_vec()
    }

    /// Along the shortest way, a little off the jambs.
    fn expert(&self) -> Vec<f64> {
        /// More than a step's way off, a corner is not touched.
        const OFF: f64 = 6.0;
        let next = crossings(self.at, self.goal).first().map(|&[x, y]| {
            // Beyond the face, as one that is reached need not be reached again.
            let ahead = (self.goal[0] - self.at[0]).signum();
            [x + ahead, y.clamp(DOOR[0] + OFF, DOOR[1] - OFF)]
        });
        toward(self.at, next.unwrap_or(self.goal))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Repeated;
    use super::*;

    #[test]
    fn the_middle_of_the_wall_can_be_passed_in_the_door_only() {
        // To the wall, along it, and through the door.
        assert_eq!(moved([104.0, 100.0], [109.0, 103.0]), [106.5, 103.0]);
        assert_eq!(moved([118.0, 100.0], [113.0, 97.0]), [117.5, 97.0]);
        assert_eq!(moved([104.0, 49.0], [109.0, 50.0]), [109.0, 50.0]);
        assert_eq!(moved([109.0, 50.0], [112.0, 70.0]), [112.0, 62.5]);
        assert_eq!(moved([115.0, 50.0], [120.0, 51.0]), [120.0, 51.0]);
        // It enters where the way crosses the face, at 62, and then keeps off the jamb.
        assert_eq!(moved([105.0, 61.0], [109.0, 63.0]), [109.0, 62.5]);
        assert_eq!(moved([105.0, 63.0], [109.0, 61.0]), [109.0, 61.0]);
        assert_eq!(moved([105.0, 64.0], [109.0, 63.0]), [106.5, 63.0]);
        assert_eq!(moved([15.0, 208.0], [10.0, 213.0]), [14.5, 209.5]);
    }

    #[test]
    fn no_sequence_of_actions_leads_into_a_wall() {
        let mut random = Stream::new(1, "actions", 0);
        let (mut passed, mut rooms) = (0, TwoRooms::default());
        for seed in 0..200 {
            rooms.reset(seed);
            let mut action = [0.0; 2];
            for step in 0..300 {
                if step % 20 == 0 {
                    action = [0; 2].map(|_| 3.0 * random.uniform_f64() - 1.5);
                }
                let before = rooms.at();
                rooms.step(&action).unwrap();
                let after = rooms.at();
                assert!(is_free(after), "{before:?} to {after:?}");
                let change = |axis: usize| (after[axis] - before[axis]).abs();
                assert!(change(0) <= SPEED + 1e-9 && change(1) <= SPEED + 1e-9);
                let middle = f64::midpoint(WALL[0], WALL[1]);
                let crosses = (before[0] - middle) * (after[0] - middle) < 0.0;
                let in_door = |y: f64| DOOR[0] < y && y < DOOR[1];
                assert!(!crosses || (in_door(before[1]) && in_door(after[1])));
                passed += usize::from(crosses);
            }
        }
        assert!(passed > 20, "{passed}");
    }

    #[test]
    fn the_shortest_way_is_the_straight_one_or_round_the_corners() {
        let straight = |a, b| assert!((path_length(a, b) - distance(a, b)).abs() < 1e-9);
        straight([20.0, 30.0], [100.0, 200.0]);
        straight([20.0, 49.0], [200.0, 49.0]);
        straight([60.0, 40.0], [164.0, 58.0]);
        // From below on both sides: to the lower corners of the door, between which is the wall's thickness.
        let round = path_length([47.0, 143.0], [177.0, 143.0]);
        assert!((round - (100.0 + 10.0 + 100.0)).abs() < 1e-9, "{round}");
        // Down through: only the near upper and the far lower corner can be in the way.
        let (from, to) = ([100.0, 15.0], [117.0 + 40.0, 63.0 + 30.0]);
        let by_corner = |y1: f64, y2: f64| {
            distance(from, [107.0, y1])
                + distance([107.0, y1], [117.0, y2])
                + distance([117.0, y2], to)
        };
        let ways = (0..=280).flat_map(|a| (0..=280).map(move |b| (a, b)));
        let tried =
            ways.map(|(a, b)| by_corner(35.0 + f64::from(a) / 10.0, 35.0 + f64::from(b) / 10.0));
        let shortest = tried.fold(f64::INFINITY, f64::min);
        let found = path_length(from, to);
        assert!(
            found <= shortest + 1e-9 && found > shortest - 0.01,
            "{found} {shortest}"
        );
        assert!((path_length(to, from) - found).abs() < 1e-9);
    }

    #[test]
    fn experts_arrive_and_straight_lines_do_not_always() {
        let mut arrived = [0; 2];
        for seed in 0..100 {
            for (arrived, expert) in arrived.iter_mut().zip([true, false]) {
                let mut rooms = TwoRooms::default();
                rooms.reset(seed);
                let mut least = distance(rooms.at(), rooms.goal()) - REACHED;
                // Both axes at once.
                least /= SPEED * std::f64::consts::SQRT_2;
                for step in 1.. {
                    let action = if expert {
                        rooms.expert()
                    } else {
                        rooms.straight()
                    };
                    let outcome = rooms.step(&action).unwrap();
                    assert!(!outcome.terminated || f64::from(step) >= least);
                    *arrived += usize::from(outcome.terminated);
                    if outcome.terminated || outcome.truncated {
                        assert!(!expert || outcome.terminated, "{seed}");
                        assert_eq!(outcome.reward, f64::from(u8::from(outcome.terminated)));
                        assert!(outcome.terminated || step == 150);
                        break;
                    }
                }
            }
        }
        assert_eq!(arrived[0], 100);
        assert!((5..60).contains(&arrived[1]), "{arrived:?}");
    }

    #[test]
    fn starts_and_goals_are_in_different_rooms_and_the_same_for_the_same_seed() {
        let (mut left, mut rooms) = (0, TwoRooms::default());
        for seed in 0..400 {
            rooms.reset(seed);
            assert!(is_free(rooms.at()) && is_free(rooms.goal()));
            assert!((rooms.at()[0] < WALL[0]) == (rooms.goal()[0] > WALL[1]));
            left += usize::from(rooms.at()[0] < WALL[0]);
            let mut again = TwoRooms::default();
            again.reset(seed);
            assert_eq!(again, rooms);
        }
        // Five standard deviations of a fair coin: 5 · 10.
        assert!((150..250).contains(&left), "{left}");
    }

    #[test]
    fn the_picture_is_the_geometry() {
        let mut rooms = TwoRooms::default();
        rooms.place([50.5, 150.5], [160.5, 49.5]).unwrap();
        let pixels = rooms.observe(224).unwrap();
        let at =
            |x: usize, y: usize| <[u8; 3]>::try_from(&pixels[3 * (y * 224 + x)..][..3]).unwrap();
        assert_eq!(at(50, 150), [255, 0, 0]);
        // One deviation away: exp(−1/2) of the white is red.
        let white = (255.0 * (1.0 - f64::exp(-0.5))).round() as u8;
        assert_eq!(at(57, 150), [255, white, white]);
        for (x, y) in [
            (0, 0),
            (13, 100),
            (210, 100),
            (107, 34),
            (116, 63),
            (107, 150),
            (100, 13),
        ] {
            assert_eq!(at(x, y), [0; 3], "{x}, {y}");
        }
        for (x, y) in [
            (14, 14),
            (106, 40),
            (107, 35),
            (116, 62),
            (117, 150),
            (209, 209),
        ] {
            assert_eq!(at(x, y), [255; 3], "{x}, {y}");
        }
        let goal = rooms.observe_goal(224).unwrap();
        assert_eq!(goal[3 * (49 * 224 + 160)..][..3], [255, 0, 0]);
        // A quarter of the size: pixels of 4 units, of which the border covers three and a half.
        let small = rooms.observe(56).unwrap();
        let red = |x: usize, y: usize| small[3 * (y * 56 + x)];
        assert_eq!([red(2, 20), red(3, 20), red(4, 20)], [0, 128, 255]);
    }

    #[test]
    fn violations_are_what_the_geometry_forbids() {
        let middle = f64::midpoint(WALL[0], WALL[1]);
        let (mut rooms, mut turned) = (Repeated::new(TwoRooms::new(1000), 10).unwrap(), 0);
        for seed in 0..200 {
            for kind in [Breach::Wall, Breach::Teleport(40.0)] {
                let drawn = breach(kind, 10, seed).unwrap();
                assert_eq!(drawn, breach(kind, 10, seed).unwrap());
                // The possible outcome is that of the environment.
                let far = [20.0, 200.0];
                rooms.inner_mut().place(drawn.start, far).unwrap();
                for _ in 0..10 {
                    rooms.inner_mut().step(&drawn.action).unwrap();
                }
                assert_eq!(rooms.inner().at(), drawn.possible);
                assert!(is_free(drawn.impossible));
                let away = distance(drawn.possible, drawn.impossible);
                match kind {
                    Breach::Wall => {
                        let side = |place: Place| place[0] < middle;
                        assert_eq!(side(drawn.start), side(drawn.possible));
                        assert_ne!(side(drawn.start), side(drawn.impossible));
                        for axis in 0..2 {
                            let way = drawn.impossible[axis] - drawn.start[axis];
                            assert!((way - 50.0 * drawn.action[axis]).abs() < 1e-9);
                        }
                        // At least the wall and the clearance lie between.
                        assert!(away >= WALL[1] - WALL[0] + CLEARANCE - 1e-9, "{away}");
                    }
                    Breach::Teleport(_) => {
                        assert!((away - 40.0).abs() < 1e-9);
                        turned += usize::from(drawn.impossible[0] < drawn.possible[0]);
                    }
                }
            }
        }
        // Five standard deviations of a fair coin: 5 · 7.
        assert!((65..135).contains(&turned), "{turned}");
    }

    #[test]
    fn violations_that_fit_nowhere_are_refused() {
        for kind in [
            Breach::Teleport(0.0),
            Breach::Teleport(-5.0),
            Breach::Teleport(f64::NAN),
            Breach::Teleport(500.0),
        ] {
            assert_eq!(breach(kind, 10, 0).unwrap_err().code(), "bad-input");
        }
        // A single step is shorter than the wall is thick.
        assert_eq!(breach(Breach::Wall, 1, 0).unwrap_err().code(), "bad-input");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let mut rooms = TwoRooms::default();
        for wrong in [
            &[0.0][..],
            &[0.0, f64::NAN],
            &[0.0; 3],
            &[f64::INFINITY, 0.0],
        ] {
            assert_eq!(rooms.step(wrong).unwrap_err().code(), "bad-input");
        }
        let free = [50.0, 50.0];
        for place in [
            [112.0, 100.0],
            [5.0, 50.0],
            [50.0, 219.0],
            [f64::NAN, 50.0],
            [-50.0, 50.0],
        ] {
            for [at, goal] in [[place, free], [free, place]] {
                assert_eq!(rooms.place(at, goal).unwrap_err().code(), "bad-input");
            }
        }
        assert!(rooms.place([112.0, 49.0], free).is_ok());
    }
}
