"""Exhaustive exploration of the real core: breadth first over everything that can happen to a small group.

Not of a model: each step gives inputs to ``quorate.core.Raft`` objects, and all states of the group that can be reached
within the bounds of a profile are visited. Messages arrive in any order, again and again, or never; timeouts come at
any moment; peers crash and restart with what their disks hold, and disks lag. After each step the invariants of the
peer (``quorate.core.invariants``) and of all peers together (``quorate.testing.record``) are checked.

**Time.** Each peer has a clock of its own, and each input comes at a moment that suits it: a timeout may come whenever
the peer waits for one, a leader may find itself alone whenever it likes, and by the time a vote is asked for no leader
counts as heard any more. All of these are real moments of a real clock that runs on by the spans of ``profiles``, which
are so far apart that small ones never add up to a large one. So two states of a peer that differ in instants alone take
the same inputs and do the same, and count as one; but for two ages, which are kept as "longer than the minimum election
timeout ago, or not": since a follower answered, and since a newcomer began to catch up.

Is that enough? That a leader was heard makes a peer refuse a vote or pass over the question: the same as if the
question had been lost, and everything may be lost. So whatever the patience of voters allows is visited, and more.
What elapsed time does beside that is left out: reads and leases, handing over leadership, giving up newcomers,
forgetting those that were removed, a log that is held back no longer for a follower that is silent, a leader that gives
way for its disk. No deadline decides about safety there, except for leases, which the simulator and the tests of reads
are for.

**Pre-votes** change nothing where they are granted. Unless a profile says otherwise a peer asks for one, gets it and
campaigns in one step; a late pre-vote could only let it campaign at another moment, and it may at any.

**The past.** Who led each term and what was ever committed is part of a state: peers forget it. Who voted for whom is
not: two votes in one term matter when they elect two leaders, and that is seen. How often each bound is used up is.

**Messages** in flight are a set: one that may arrive again is two already. They carry no number of a round of reads. A
message whose arrival could change no more than its loss is dropped at once; and where more are sent than there is
room for, any of them are lost, in every way.
"""
