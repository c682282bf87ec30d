<?php
// Installs WordPress and writes its content, the same on every run. usage: site.php ROOT DOMAIN
[, $root, $domain] = $argv;
define('WP_INSTALLING', true);
$_SERVER['HTTP_HOST'] = $domain;
$_SERVER['REQUEST_URI'] = '/';
$_SERVER['SERVER_PROTOCOL'] = 'HTTP/1.1';

// No mail leaves a test.
function wp_mail() { return true; }
function wp_new_blog_notification() {}

require $root . '/wp-load.php';
require_once ABSPATH . 'wp-admin/includes/upgrade.php';

wp_install('Acme Tools', 'admin', 'admin@' . $domain, true, '', 'correct horse battery staple');
update_option('blogdescription', 'Tools, and what people do with them');
update_option('siteurl', 'http://' . $domain);
update_option('home', 'http://' . $domain);
for ($number = 1; $number <= 40; $number++) {
    $date = sprintf('2026-01-%02d 12:00:00', ($number - 1) % 28 + 1);
    wp_insert_post([
        'post_title' => "Hammer number $number “für Alle” 🔨",
        'post_name' => "hammer-$number",
        'post_content' => "<p>This is what hammer $number is for.</p>\n" . str_repeat("<p>Nails, \\ backslashes and 'quotes'.</p>\n", $number),
        'post_status' => 'publish',
        'post_author' => 1,
        'post_date' => $date,
        'post_date_gmt' => $date,
    ], true);
}
