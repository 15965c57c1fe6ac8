//! A maze whose walls each episode has anew: a dot in a grid of cells, between any two of which there is one way. The picture shows the
//! walls.

use std::collections::VecDeque;

use super::canvas::{Canvas, Colour};
use super::{Environment, Outcome, admitted};
use crate::rng::{Generator, Stream};
use crate::{Error, Result};

/// Width and height of the whole.
pub const EXTENT: f64 = 224.0;
/// Thickness of all walls, which are centred on the borders of cells.
pub const THICKNESS: f64 = 8.0;
/// Standard deviation of the dot.
pub const RADIUS: f64 = 5.0;
/// The way of a step along each axis.
pub const SPEED: f64 = 5.0;
/// The goal is reached nearer than this.
pub const REACHED: f64 = 12.0;
/// What is stopped by a wall stays this far from it.
pub const CLEARANCE: f64 = 0.5;

const WHITE: Colour = [1.0; 3];
const BLACK: Colour = [0.0; 3];
const RED: Colour = [1.0, 0.0, 0.0];

/// Fewest and most cells along a side: with more the dot would not fit between walls.
const CELLS: [usize; 2] = [2, 8];
/// Steps of an episode for each cell of the maze, unless told otherwise: the longest way goes through all of them.
const STEPS_EACH: usize = 20;

/// Column and row.
type Cell = [usize; 2];

/// The environment.
#[derive(Clone, Debug, PartialEq)]
pub struct Maze {
    cells: usize,
    longest: usize,
    /// For each axis and cell, row by row, whether there is a way to the next cell along the axis.
    open: [Vec<bool>; 2],
    at: [f64; 2],
    goal: [f64; 2],
    steps: usize,
}

impl Maze {
    /// With so many cells along a side, at the start of the episode with seed 0.
    ///
    /// # Errors
    /// [`Error::BadInput`] for fewer than 2 or more than 8 cells along a side.
    pub fn new(cells: usize) -> Result<Self> {
        if !(CELLS[0]..=CELLS[1]).contains(&cells) {
            return Err(Error::BadInput(format!(
                "a maze has {} to {} cells along a side, not {cells}",
                CELLS[0], CELLS[1]
            )));
        }
        let mut maze = Self {
            cells,
            longest: STEPS_EACH * cells * cells,
            open: [Vec::new(), Vec::new()],
            at: [0.0; 2],
            goal: [0.0; 2],
            steps: 0,
        };
        maze.reset(0);
        Ok(maze)
    }

    fn pitch(&self) -> f64 {
        EXTENT / self.cells as f64
    }

    fn middle(&self, cell: Cell) -> [f64; 2] {
        cell.map(|i| (i as f64 + 0.5) * self.pitch())
    }

    fn cell(&self, at: [f64; 2]) -> Cell {
        at.map(|v| ((v / self.pitch()) as usize).min(self.cells - 1))
    }

    /// Whether there is a way from a cell to the next along an axis, upwards in its number.
    fn is_open(&self, [column, row]: Cell, axis: usize) -> bool {
        self.open[axis][row * self.cells + column]
    }

    /// The cells to which there is a way from a cell.
    fn neighbours(&self, cell: Cell) -> impl Iterator<Item = Cell> {
        (0..2).flat_map(move |axis| {
            let mut next = cell;
            next[axis] += 1;
            let next = self.is_open(cell, axis).then_some(next);
            let before = cell[axis].checked_sub(1).and_then(|i| {
                let mut before = cell;
                before[axis] = i;
                self.is_open(before, axis).then_some(before)
            });
            next.into_iter().chain(before)
        })
    }

    /// The cell after `from` on the way to `to`; none when they are one.
    fn next_cell(&self, from: Cell, to: Cell) -> Option<Cell> {
        if from == to {
            return None;
        }
        let place = |[column, row]: Cell| row * self.cells + column;
        let mut seen = vec![false; self.cells * self.cells];
        seen[place(to)] = true;
        let mut queue = VecDeque::from([to]);
        while let Some(cell) = queue.pop_front() {
            for next in self.neighbours(cell) {
                if next == from {
                    return Some(cell);
                }
                if !std::mem::replace(&mut seen[place(next)], true) {
                    queue.push_back(next);
                }
            }
        }
        None
    }

    /// Where a dot can go from a place along an axis, as far as a step leads.
    fn bounds(&self, at: [f64; 2], axis: usize) -> [f64; 2] {
        let (pitch, half) = (self.pitch(), THICKNESS / 2.0);
        let cell = self.cell(at);
        let [own, across] = [axis, 1 - axis].map(|axis| {
            let low = cell[axis] as f64 * pitch;
            [low + half, low + pitch - half]
        });
        let clear = across[0] + CLEARANCE..=across[1] - CLEARANCE;
        let between_walls = !clear.contains(&at[1 - axis]);
        let mut before = cell;
        let opens_before = cell[axis] > 0 && {
            before[axis] -= 1;
            self.is_open(before, axis)
        };
        let opens_after = self.is_open(cell, axis);
        // What stands in an opening has walls at both sides.
        let low = if opens_before && !between_walls {
            own[0] - pitch
        } else {
            own[0]
        };
        let high = if opens_after && !between_walls {
            own[1] + pitch
        } else {
            own[1]
        };
        [low + CLEARANCE, high - CLEARANCE]
    }

    /// Whether a dot can be at a place.
    pub fn is_free(&self, at: [f64; 2]) -> bool {
        (0..2).all(|axis| {
            let [low, high] = self.bounds(at, axis);
            (low..=high).contains(&at[axis])
        })
    }

    /// The walls, as `[low, high]` corners.
    fn walls(&self) -> Vec<[[f64; 2]; 2]> {
        let (pitch, half) = (self.pitch(), THICKNESS / 2.0);
        let mut walls = Vec::new();
        for side in [0.0, EXTENT] {
            walls.push([[side - half, 0.0], [side + half, EXTENT]]);
            walls.push([[0.0, side - half], [EXTENT, side + half]]);
        }
        for (row, column) in (0..self.cells).flat_map(|r| (0..self.cells).map(move |c| (r, c))) {
            for axis in 0..2 {
                let last = [column, row][axis] + 1 == self.cells;
                if last || self.is_open([column, row], axis) {
                    continue;
                }
                let mut low = [column as f64 * pitch - half, row as f64 * pitch - half];
                let mut high = [low[0] + pitch + THICKNESS, low[1] + pitch + THICKNESS];
                low[axis] = high[axis] - THICKNESS;
                high[axis] = low[axis] + THICKNESS;
                walls.push([low, high]);
            }
        }
        walls
    }

    fn picture(&self, at: [f64; 2], side: usize) -> Result<Vec<u8>> {
        let mut canvas = Canvas::new(side, EXTENT, WHITE)?;
        canvas.glow(RED, at, RADIUS);
        for [low, high] in self.walls() {
            canvas.rectangle(BLACK, low, high);
        }
        Ok(canvas.bytes())
    }
}

impl Environment for Maze {
    fn action_size(&self) -> usize {
        2
    }

    /// New walls, a start and a goal in different cells.
    fn reset(&mut self, seed: u64) {
        let random = &mut Stream::new(seed, "maze", 0);
        let cells = self.cells;
        self.open = [0; 2].map(|_| vec![false; cells * cells]);
        // Depth first: from the latest cell with a neighbour that has no way yet, to one of those.
        let mut reached = vec![false; cells * cells];
        let mut trail = vec![[random.below(cells), random.below(cells)]];
        while let Some(&[column, row]) = trail.last() {
            reached[row * cells + column] = true;
            let around = [
                (column + 1 < cells).then(|| ([column + 1, row], 0, [column, row])),
                (column > 0).then(|| ([column - 1, row], 0, [column - 1, row])),
                (row + 1 < cells).then(|| ([column, row + 1], 1, [column, row])),
                (row > 0).then(|| ([column, row - 1], 1, [column, row - 1])),
            ];
            let new: Vec<_> = around
                .into_iter()
                .flatten()
                .filter(|([c, r], ..)| !reached[r * cells + c])
                .collect();
            if new.is_empty() {
                trail.pop();
                continue;
            }
            let (next, axis, [c, r]) = new[random.below(new.len())];
            self.open[axis][r * cells + c] = true;
            trail.push(next);
        }
        let first = random.below(cells * cells);
        let other = (first + 1 + random.below(cells * cells - 1)) % (cells * cells);
        [self.at, self.goal] = [first, other].map(|i| self.middle([i % cells, i / cells]));
        self.steps = 0;
    }

    fn step(&mut self, action: &[f64]) -> Result<Outcome> {
        let action = admitted(action, self.action_size())?;
        for (axis, push) in action.iter().enumerate() {
            let [low, high] = self.bounds(self.at, axis);
            self.at[axis] = (self.at[axis] + SPEED * push).clamp(low, high);
        }
        self.steps += 1;
        let away = (self.at[0] - self.goal[0]).hypot(self.at[1] - self.goal[1]);
        let terminated = away < REACHED;
        Ok(Outcome {
            reward: f64::from(u8::from(terminated)),
            terminated,
            truncated: self.steps >= self.longest,
        })
    }

    fn observe(&self, side: usize) -> Result<Vec<u8>> {
        self.picture(self.at, side)
    }

    fn observe_goal(&self, side: usize) -> Result<Vec<u8>> {
        self.picture(self.goal, side)
    }

    /// `[x, y]`.
    fn state(&self) -> Vec<f64> {
        self.at.to_vec()
    }

    /// From the middle of a cell to that of the next.
    fn expert(&self) -> Vec<f64> {
        let (from, to) = (self.cell(self.at), self.cell(self.goal));
        let next = self
            .next_cell(from, to)
            .map_or(self.goal, |c| self.middle(c));
        let middle = self.middle(from);
        let way = [0, 1].map(|axis| next[axis] - self.at[axis]);
        // First to the line between the middles: the corner of a wall may be before it.
        let along = usize::from(next[0] == middle[0]);
        let off = middle[1 - along] - self.at[1 - along];
        let way = match off.abs() > 1.0 {
            true if along == 0 => [0.0, off],
            true => [off, 0.0],
            false => way,
        };
        way.map(|v| (v / SPEED).clamp(-1.0, 1.0)).to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_is_reached_in_one_way() {
        for (cells, seed) in [(2, 0), (4, 1), (5, 2), (8, 3)] {
            let mut maze = Maze::new(cells).unwrap();
            maze.reset(seed);
            let ways = maze.open.iter().flatten().filter(|&&open| open).count();
            assert_eq!(ways, cells * cells - 1);
            let all = (0..cells * cells).map(|i| [i % cells, i / cells]);
            for cell in all {
                let mut at = cell;
                for _ in 0..cells * cells {
                    at = maze.next_cell(at, [0, 0]).unwrap_or(at);
                }
                assert_eq!(at, [0, 0], "{cell:?}");
            }
            let mut again = Maze::new(cells).unwrap();
            again.reset(seed);
            assert_eq!(maze, again);
            again.reset(seed + 100);
            assert!(cells == 2 || maze.open != again.open);
        }
    }

    #[test]
    fn no_sequence_of_actions_leads_into_a_wall() {
        let mut random = Stream::new(1, "actions", 0);
        let mut visited = 0;
        for seed in 0..40 {
            let mut maze = Maze::new(4).unwrap();
            maze.reset(seed);
            let walls = maze.walls();
            let mut cells = std::collections::BTreeSet::new();
            let mut action = [0.0; 2];
            for step in 0..1000 {
                if step % 15 == 0 {
                    action = [0; 2].map(|_| 4.0 * random.uniform_f64() - 2.0);
                }
                maze.step(&action).unwrap();
                let [x, y] = maze.at;
                assert!(maze.is_free([x, y]));
                for [low, high] in &walls {
                    let inside = low[0] < x && x < high[0] && low[1] < y && y < high[1];
                    assert!(!inside, "{x}, {y} is in the wall from {low:?} to {high:?}");
                }
                cells.insert(maze.cell([x, y]));
            }
            visited += cells.len();
        }
        assert!(visited > 160, "{visited}");
    }

    #[test]
    fn experts_arrive() {
        for seed in 0..60 {
            let mut maze = Maze::new(2 + seed as usize % 7).unwrap();
            maze.reset(seed);
            let outcome = loop {
                let outcome = maze.step(&maze.expert()).unwrap();
                if outcome.terminated || outcome.truncated {
                    break outcome;
                }
            };
            assert!(outcome.terminated && outcome.reward == 1.0, "{seed}");
        }
    }

    #[test]
    fn the_picture_shows_the_walls_and_the_dot() {
        let maze = Maze::new(4).unwrap();
        let pixels = maze.observe(224).unwrap();
        let red_at = |[x, y]: [f64; 2]| &pixels[3 * (y as usize * 224 + x as usize)..][..3];
        // Between two middles there is a wall or none.
        for (axis, cell) in (0..2).flat_map(|axis| (0..16).map(move |i| (axis, [i % 4, i / 4]))) {
            if cell[axis] == 3 {
                continue;
            }
            let mut border = maze.middle(cell);
            border[axis] += maze.pitch() / 2.0;
            let expected = if maze.is_open(cell, axis) { 255 } else { 0 };
            assert_eq!(red_at(border)[0], expected, "{cell:?} {axis}");
        }
        let dot = red_at(maze.at);
        assert!(dot[0] == 255 && dot[1] < 10, "{dot:?}");
        assert_ne!(maze.observe_goal(56).unwrap(), maze.observe(56).unwrap());
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for cells in [0, 1, 9, usize::MAX] {
            assert_eq!(Maze::new(cells).unwrap_err().code(), "bad-input");
        }
        let mut maze = Maze::new(3).unwrap();
        assert_eq!(maze.step(&[f64::NAN, 0.0]).unwrap_err().code(), "bad-input");
    }
}
