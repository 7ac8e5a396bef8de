#!/bin/bash
# Subject: cron 3.0pl1-162 of Debian 12 (under libfaketime 0.9.10): the two day fields, and what `crontab -n` takes for right.
# Expected: crontab(5): "If both fields are restricted (ie, aren't *), the command will be run when either field matches". So
#   `0 0 */2 * 1` runs on Mondays and on odd days. A range that ends before it begins, or two steps, is an error.
# Seen: a field that only begins with * counts as *: `0 0 */2 * 1` and `0 0 *,5 * 1` need both to match (Mondays alone), while
#   `0 0 1-31/2 * 1` and `0 0 5,* * 1` need one. `crontab -n` takes `30-10`, `*/2/2`, `1-2-3` and `* * * * sat-sun`.
# How: cron in a mount namespace of its own, started 80 s before midnight on some dates with a clock 60 times as fast.
# Why: the schedule of a copied line depends on how a field is written, and schedulers that follow the manual page run it on other days.
set -euo pipefail
[ "$(id -u)" = 0 ] || { echo "needs root, for a mount namespace"; exit 1; }
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
cd "$dir" && chmod 755 . && mkdir got && chown _apt got 2>/dev/null || true
(cd got && apt-get -qq download cron=3.0pl1-162 libfaketime=0.9.10-2.1)
for deb in got/*.deb; do dpkg -x "$deb" root; done
faketime=$(find "$PWD/root" -name libfaketime.so.1)
expressions=('0 0 */2 * 1' '0 0 *,5 * 1' '0 0 1-31/2 * 1' '0 0 5,* * 1')
mkdir -p spool/cron/crontabs pam
printf '%s sufficient pam_permit.so\n' auth account session | tee pam/cron > pam/other

# The dates of September 2026 on which each runs: the 1st is a Tuesday, the 7th and 14th are Mondays.
for date in 01 07 08 14; do
    for at in "${!expressions[@]}"; do
        echo "${expressions[$at]} echo $date >> $dir/ran.$at"
    done > spool/cron/crontabs/root
    chmod 600 spool/cron/crontabs/root
    before=$(date -d "2026-09-$date -1 day" +%F)
    unshare -m sh -c "mount --make-rprivate / && mount --bind $dir/spool /var/spool && mount --bind $dir/pam /etc/pam.d &&
        mount -t tmpfs none /run && exec env -i PATH=/usr/bin:/bin LD_PRELOAD=$faketime NO_FAKE_STAT=1 \
        FAKETIME='@$before 23:58:40 x60' root/usr/sbin/cron -f -L 0" &
    cron=$!
    sleep 4
    kill "$cron"; wait "$cron" 2>/dev/null || true
done
for at in "${!expressions[@]}"; do
    printf '%-18s %s\n' "${expressions[$at]}" "$(tr '\n' ' ' < "ran.$at")" | tee -a table
done
for line in '30-10 * * * *' '*/2/2 * * * *' '1-2-3 * * * *' '* * * * sat-sun'; do
    echo "$line true" > line
    printf '%-18s %s\n' "$line" "$(root/usr/bin/crontab -n line >/dev/null 2>&1 && echo taken || echo refused)" | tee -a table
done
diff -b table - <<'END' || { echo "changed: the lines above"; exit 1; }
0 0 */2 * 1        07
0 0 *,5 * 1        07 14
0 0 1-31/2 * 1     01 07 14
0 0 5,* * 1        01 07 08 14
30-10 * * * *      taken
*/2/2 * * * *      taken
1-2-3 * * * *      taken
* * * * sat-sun    taken
END
echo ok
